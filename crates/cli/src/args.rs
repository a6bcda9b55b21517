//! The command tree.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Service discovery for Kubernetes in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "portolan",
    version,
    about = "Service discovery for Kubernetes in one binary: DNS, virtual IPs, a registry of \
             processes, and a cluster for your laptop.",
    after_help = "Examples:\n  \
        portolan up --demo                 run everything, with a demo to play with\n  \
        portolan get instances -n demo     every process that can be called\n  \
        portolan why svc/reviews -n demo   why something is (not) served\n  \
        portolan dig reviews --from demo   ask the DNS server as a Pod of a namespace would"
)]
pub struct Cli {
    /// How to reach the server.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How reading verbs reach the server.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// URL of the HTTP API [default: from ./.portolan/addresses.json, else http://127.0.0.1:8500]
    #[arg(
        long,
        global = true,
        env = "PORTOLAN_SERVER",
        value_name = "URL",
        help_heading = "Connection"
    )]
    pub server: Option<String>,
    /// File with the bearer token, needed off loopback
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub token_file: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process, on the embedded cluster
    Up(Box<UpArgs>),
    /// Run the embedded Kubernetes API and its controllers alone
    Cluster(ClusterArgs),
    /// Serve names and the HTTP API for a Kubernetes cluster that runs already
    Serve(Box<ServeArgs>),
    /// Run the sidecar: registration, discovery and balancing for a program of any language
    Agent(AgentArgs),
    /// List services, instances, endpoints, nodes, sources or versions
    Get(GetArgs),
    /// Print one line per change of the catalog
    Watch(WatchArgs),
    /// Say why something is, or is not, served
    Why(WhyArgs),
    /// Block until a change is live (or gone) on every face
    Wait(WaitArgs),
    /// Ask the DNS server, as a Pod would
    Dig(DigArgs),
    /// Register a process that runs outside the cluster
    Register(RegisterArgs),
    /// Check that everything works
    Check(CheckArgs),
    /// Explain a reason code
    Explain(ExplainArgs),
    /// Print a completion script
    #[command(
        after_help = "Example:\n  portolan completion bash > /etc/bash_completion.d/portolan"
    )]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
    /// One service of the demo (run by the demo's Pods)
    #[command(hide = true)]
    Demo(DemoArgs),
}

/// The parts of `up` that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Virtual IPs and node ports
    Proxy,
    /// Names
    Dns,
    /// Proxies and gRPC clients
    Xds,
    /// HTTP API
    Api,
    /// Web pages
    Console,
}

/// What `up` and `cluster` share.
#[derive(Clone, Debug, Args)]
pub struct ClusterFlags {
    /// Where the embedded Kubernetes API listens (TLS, bearer token)
    #[arg(long, value_name = "ADDRESS", value_parser = socket, default_value = "127.0.0.1:7443")]
    pub api_listen: SocketAddr,
    /// Where the store, kubeconfig, certificates and addresses.json are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Keep the store in memory; files go to --data-dir, or to a temporary folder
    #[arg(long)]
    pub ephemeral: bool,
    /// Do not wait for the disk: a killed process still loses nothing, but a power failure may leave
    /// a store that does not open (etcd's flag of this name)
    #[arg(long)]
    pub unsafe_no_fsync: bool,
    /// Changes that the API remembers: watches and lists can go back so far [default: 100000]
    #[arg(long, value_name = "CHANGES", value_parser = clap::value_parser!(u32).range(1..))]
    pub history: Option<u32>,
    /// How Pods are connected
    #[arg(long, value_enum, default_value = "loopback")]
    pub pod_network: PodNetwork,
    /// Addresses of Pods, IPv4[,IPv6] [default: 127.10.0.0/16,fd00:10::/64; netns: 10.244.0.0/16]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub pod_cidr: Vec<String>,
    /// Addresses of Services, IPv4[,IPv6] [default: 127.96.0.0/16,fd00:96::/112; netns: 10.96.0.0/16]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub service_cidr: Vec<String>,
    /// Zone of the node that runs Pods
    #[arg(long, value_name = "ZONE", default_value = "local")]
    pub zone: String,
    /// Print addresses.json as one line once ready
    #[arg(short, long, value_enum)]
    pub output: Option<RunOutput>,
}

/// How `up` prints its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RunOutput {
    /// One line of JSON
    Json,
}

/// How Pods are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PodNetwork {
    /// Each Pod has a loopback address of its own
    Loopback,
    /// Each Pod has network and mount namespaces of its own (as root, or with user namespaces)
    Netns,
}

/// What `up` and `serve` share.
#[derive(Clone, Debug, Args)]
pub struct FaceFlags {
    /// Where the DNS server listens (UDP and TCP)
    #[arg(long, value_name = "ADDRESS", value_parser = socket, default_value = "127.0.0.1:1053")]
    pub dns_listen: SocketAddr,
    /// Where the DNS server listens for DNS over TLS [default: it does not]
    #[arg(long, value_name = "ADDRESS", value_parser = socket, requires_all = ["dns_tls_certificate", "dns_tls_key"])]
    pub dns_tls_listen: Option<SocketAddr>,
    /// Its certificate, with those that lead to its authority (PEM)
    #[arg(long, value_name = "FILE", requires = "dns_tls_listen")]
    pub dns_tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "dns_tls_listen")]
    pub dns_tls_key: Option<PathBuf>,
    /// Where names that are not the cluster's are asked for: IP:PORT,... [default: they are refused]
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub dns_upstream: Vec<SocketAddr>,
    /// Run the DNS server from a CoreDNS Corefile; --dns-listen replaces all of its ports
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dns_config", "dns_upstream"])]
    pub corefile: Option<PathBuf>,
    /// Run the DNS server from a TOML file; --dns-listen replaces all of its ports
    #[arg(long, value_name = "FILE", conflicts_with = "dns_upstream")]
    pub dns_config: Option<PathBuf>,
    /// Where the HTTP API listens
    #[arg(long, value_name = "ADDRESS", value_parser = socket, default_value = "127.0.0.1:8500")]
    pub http_listen: SocketAddr,
    /// Where the xDS server listens (gRPC without TLS: loopback only)
    #[arg(long, value_name = "ADDRESS", value_parser = socket, default_value = "127.0.0.1:15010")]
    pub xds_listen: SocketAddr,
    /// A static list of services as a source of its own: NAME=FILE (YAML or JSON)
    #[arg(long, value_name = "NAME=FILE")]
    pub source_file: Vec<String>,
    /// The domain of cluster names
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
}

/// `portolan up`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    portolan up --demo\n  \
    portolan up --ephemeral --without proxy -o json\n  \
    portolan up --http-listen 127.0.0.1:0 --source-file legacy=./services.yaml")]
pub struct UpArgs {
    /// The cluster's flags.
    #[command(flatten)]
    pub cluster: ClusterFlags,
    /// Create the demo: four services as six real processes, in namespace demo
    #[arg(long)]
    pub demo: bool,
    /// Leave parts out: proxy,dns,xds,api,console
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
    pub without: Vec<Part>,
    /// The faces' flags.
    #[command(flatten)]
    pub faces: FaceFlags,
}

/// What `serve` serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Names
    Dns,
    /// Proxies and gRPC clients
    Xds,
    /// HTTP API
    Api,
}

/// `portolan serve`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    portolan serve --roles dns --corefile /etc/coredns/Corefile --dns-listen 0.0.0.0:53\n  \
    portolan serve --kubeconfig ~/.kube/config --data-dir ./serve -o json")]
pub struct ServeArgs {
    /// What is served: dns,xds,api
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "ROLES",
        default_value = "dns,xds,api"
    )]
    pub roles: Vec<Role>,
    /// The cluster [default: the one that we run in, else KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where addresses.json goes, and what the API told last: a restart without it answers from
    /// there. One directory for each cluster [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The faces' flags.
    #[command(flatten)]
    pub faces: FaceFlags,
    /// Print addresses.json as one line once ready
    #[arg(short, long, value_enum)]
    pub output: Option<RunOutput>,
}

/// `portolan cluster`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    portolan cluster --ephemeral --api-listen 127.0.0.1:0 -o json\n  \
    portolan cluster --ephemeral --no-node")]
pub struct ClusterArgs {
    /// The cluster's flags.
    #[command(flatten)]
    pub cluster: ClusterFlags,
    /// Run no Node, bind and run no Pods: for tests that set the status of Pods themselves
    #[arg(long)]
    pub no_node: bool,
}

/// `portolan agent`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    portolan agent\n  \
    portolan agent --listen unix:/run/portolan/agent.sock --register /etc/portolan/register.yaml\n  \
    portolan agent --direct --listen 127.0.0.1:0 -o json")]
pub struct AgentArgs {
    /// Where to listen: a loopback address, or unix:/PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8501")]
    pub listen: String,
    /// Follow the Kubernetes API in place of a Portolan server (--server)
    #[arg(long)]
    pub direct: bool,
    /// The namespace to register and to look in [default: NAMESPACE, POD_NAMESPACE, the ServiceAccount's]
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Register what a file says (YAML or JSON: owner, services)
    #[arg(long, value_name = "FILE")]
    pub register: Vec<PathBuf>,
    /// How long callers get to hear that a process drains
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "5s")]
    pub drain: Duration,
    /// Print where it listens as one line of JSON once ready
    #[arg(short, long, value_enum)]
    pub output: Option<RunOutput>,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Noun {
    /// Services of every origin
    #[value(alias = "service", alias = "svc")]
    Services,
    /// Each endpoint on each of its ports: what a client connects to
    #[value(alias = "instance")]
    Instances,
    /// Endpoints with all their ports and conditions
    #[value(alias = "endpoint", alias = "ep")]
    Endpoints,
    /// Nodes
    #[value(alias = "node")]
    Nodes,
    /// Where the catalog learns from
    #[value(alias = "source")]
    Sources,
    /// Versions of the catalog, newest first
    #[value(alias = "version")]
    Versions,
    /// Clients of xDS, and how far each is with every type of resource
    #[value(alias = "client")]
    Clients,
    /// Clients of DNS that ask most, and how much of it in vain
    #[value(alias = "dns-client")]
    DnsClients,
    /// What a client of xDS starts from: `bootstrap envoy` or `bootstrap grpc`
    Bootstrap,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For people with wide screens
    Wide,
    /// For scripts
    Json,
    /// For scripts that are read
    Yaml,
    /// NAMESPACE/NAME, one a line
    Name,
}

/// Which part of the catalog.
#[derive(Clone, Debug, Args)]
pub struct Scope {
    /// Only this namespace [default: all for lists; for one target `default`, else the only one that has it]
    #[arg(short, long, env = "PORTOLAN_NAMESPACE")]
    pub namespace: Option<String>,
    /// All namespaces, whatever -n and PORTOLAN_NAMESPACE say
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only services with these labels: key=value, key!=value, key in (a,b), key notin (a,b), key, !key
    #[arg(short = 'l', long = "selector", value_name = "LABELS")]
    pub labels: Option<String>,
    /// Only this origin: kubernetes, registry, or a configured name
    #[arg(long)]
    pub origin: Option<String>,
}

/// `portolan get`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    portolan get services -A\n  \
    portolan get services -l 'tier in (front,back),!canary'\n  \
    portolan get instances reviews -n demo -o wide\n  \
    portolan get endpoints demo/reviews -o yaml\n  \
    portolan get instances -o json | jq '.items[].address'\n  \
    portolan get services -w")]
pub struct GetArgs {
    /// What to list
    pub noun: Noun,
    /// Only this service, [ORIGIN:][NAMESPACE/]NAME; for nodes, sources and versions, their name
    pub name: Option<String>,
    /// Which part of the catalog.
    #[command(flatten)]
    pub scope: Scope,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Print again at each change; with -o json one list per line
    #[arg(short, long)]
    pub watch: bool,
}

/// `portolan watch`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  portolan watch -n demo\n  \
    portolan watch reviews -o json\n  portolan watch -l tier=front")]
pub struct WatchArgs {
    /// Only services whose name contains this text
    pub name: Option<String>,
    /// Which part of the catalog.
    #[command(flatten)]
    pub scope: Scope,
    /// `table` prints one line per change, `json` one event per line, `name` what changed
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// A target, as `why` and `wait` take it.
#[derive(Clone, Debug, Args)]
pub struct TargetArgs {
    /// svc/NAME, pod/NAME, IP[:PORT], a DNS name, or a bare name
    pub target: String,
    /// Where to look for the name [default: `default`, else the only namespace that has it]
    #[arg(short, long, env = "PORTOLAN_NAMESPACE")]
    pub namespace: Option<String>,
    /// Only these faces: dns,xds,proxy,api
    #[arg(long, value_name = "FACES")]
    pub on: Option<String>,
}

/// `portolan why`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    portolan why svc/reviews -n demo\n  \
    portolan why pod/reviews-v1-abcde-12345\n  \
    portolan why 127.10.0.4:9080\n  \
    portolan why reviews.demo.svc.cluster.local --on dns\n  \
    portolan why svc/reviews --from demo/productpage-v1-abcde-12345")]
pub struct WhyArgs {
    /// What to explain.
    #[command(flatten)]
    pub target: TargetArgs,
    /// As this Pod sees it, by its node, zone and namespace: [NAMESPACE/]POD
    #[arg(long, value_name = "POD")]
    pub from: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `portolan wait`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    portolan wait svc/reviews -n demo\n  \
    portolan wait pod/web-0 --gone --on dns,proxy --timeout 30s")]
pub struct WaitArgs {
    /// What to wait for.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Until it is gone everywhere, and nobody holds an old answer any more
    #[arg(long)]
    pub gone: bool,
    /// How long: 500ms, 30s, 5m
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub timeout: Duration,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Words of `portolan dig` behind the name: a type, and each of dig's options once.
const DIG_WORDS_MAX: usize = 4;

/// `portolan dig`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    portolan dig details.demo.svc.cluster.local\n  \
    portolan dig 127.10.0.4\n  \
    portolan dig details --from demo\n  \
    portolan dig details --from demo/productpage-v1-abcde-12345\n  \
    portolan dig _http._tcp.details.demo.svc.cluster.local SRV\n  \
    portolan dig example.org --from demo +trace")]
pub struct DigArgs {
    /// The name; an IP address asks for its PTR
    pub name: String,
    /// A, AAAA, SRV, PTR, CNAME, TXT, SOA, NS, ANY [default: A]; and +trace, +tcp, +short,
    /// as dig has them
    #[arg(value_name = "TYPE", num_args = 0..=DIG_WORDS_MAX)]
    pub words: Vec<String>,
    /// Ask as a Pod would, with its search path: [NAMESPACE/]POD, or a namespace
    #[arg(long, value_name = "POD")]
    pub from: Option<String>,
    /// Over TCP
    #[arg(long)]
    pub tcp: bool,
    /// Only the data of the answer
    #[arg(long)]
    pub short: bool,
    /// How the server comes to each answer, stage by stage
    #[arg(long)]
    pub trace: bool,
    /// The DNS server [default: from addresses.json, else 127.0.0.1:1053]
    #[arg(long, value_name = "ADDRESS", value_parser = dns_server)]
    pub dns: Option<SocketAddr>,
    /// How to print it; `name` is --short
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `portolan register`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  \
    portolan register reviews --address 127.0.0.1:9080 --interface-version v4 -n demo")]
pub struct RegisterArgs {
    /// The interface that the process offers
    pub interface: String,
    /// Where it listens
    #[arg(long, value_name = "IP:PORT", value_parser = socket)]
    pub address: SocketAddr,
    /// What it speaks
    #[arg(long, default_value = "http")]
    pub protocol: String,
    /// Group of the interface
    #[arg(long)]
    pub group: Option<String>,
    /// Version of the interface
    #[arg(long = "interface-version", visible_alias = "service-version", value_name = "VERSION")]
    pub version: Option<String>,
    /// Methods, comma separated
    #[arg(long, value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Share of traffic; 100 is the usual one
    #[arg(long, default_value_t = 100)]
    pub weight: u32,
    /// More metadata: key=value
    #[arg(long = "meta", value_name = "KEY=VALUE")]
    pub metadata: Vec<String>,
    /// The namespace to register in
    #[arg(short, long, default_value = "default", env = "PORTOLAN_NAMESPACE")]
    pub namespace: String,
    /// The kubeconfig [default: from addresses.json, else KUBECONFIG]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// `portolan check`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  portolan check --wait 30s && kubectl apply -f app.yaml")]
pub struct CheckArgs {
    /// Keep trying for so long until everything is fine
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub wait: Option<Duration>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `portolan explain`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  portolan explain PTL0201\n  portolan explain ListensElsewhere -o json\n  \
    portolan explain"
)]
pub struct ExplainArgs {
    /// PTLnnnn, or its name; all codes when absent
    pub code: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `portolan demo`
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// productpage, details, reviews or ratings
    pub service: String,
    /// Where to listen [default: $POD_IP:9080]
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Version of the service
    #[arg(long, default_value = "v1")]
    pub version: String,
}

/// Reads `IP:PORT`.
pub fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is no address; write IP:PORT, like 127.0.0.1:8500 or [::1]:8500")
    })
}

/// Reads `IP[:PORT]` of a DNS server; port 53 where none is given.
pub fn dns_server(text: &str) -> Result<SocketAddr, String> {
    match text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) => Ok((address, 53).into()),
        Err(_) => socket(text),
    }
}

/// The longest duration that a flag takes: a year of waiting is a mistake, and
/// far below what a clock can count to.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads `500ms`, `30s`, `5m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 500ms, 30s, 5m or 1h");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60).ok_or_else(wrong)?),
        "h" => Duration::from_secs(number.checked_mul(3600).ok_or_else(wrong)?),
        _ => return Err(wrong()),
    };
    if duration > DURATION_MAX {
        return Err(format!("{text:?} is more than a year; write at most 8760h"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("127.0.0.1:53", Some("127.0.0.1:53")),
            ("127.0.0.1", Some("127.0.0.1:53")),
            ("::1", Some("[::1]:53")),
            ("[::1]", Some("[::1]:53")),
            ("[::1]:1053", Some("[::1]:1053")),
            ("localhost:53", None),
            (":53", None),
        ] {
            assert_eq!(dns_server(text).ok().map(|a| a.to_string()).as_deref(), expected, "{text}");
        }
        assert!(socket("8500").is_err_and(|error| error.contains("127.0.0.1:8500")));
    }

    /// What people type, and what it comes to.
    #[test]
    fn the_namespace_of_the_environment_does_not_stand_in_the_way_of_all() {
        let words = ["portolan", "get", "services", "-n", "demo", "-A"];
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Get(get) = cli.command else { panic!("{:?}", cli.command) };
        assert!(get.scope.all_namespaces);
    }

    /// Each verb that people type shows them how.
    #[test]
    fn every_verb_has_an_example() {
        for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let plain = ["version", "help"].contains(&verb.get_name());
            assert!(plain || help.contains("portolan "), "{}", verb.get_name());
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("5", None),
            ("s", None),
            ("1d", None),
            ("8760h", Some(365 * 24 * 3_600_000)),
            ("8761h", None),
            ("9999999999999999h", None),
            ("18446744073709551615s", None),
        ] {
            assert_eq!(duration(text).ok().map(|d| d.as_millis()), ms, "{text}");
        }
    }
}

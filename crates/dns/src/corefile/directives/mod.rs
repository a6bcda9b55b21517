//! Directives of a server block, put into the configuration.
//!
//! The table below is all that is known. What CoreDNS has and we do not is refused
//! with the reason; what we have no use for, because it is always so here, is taken
//! with a note.

mod args;
mod serving;
mod shaping;
mod upstream;
mod watching;

use std::path::Path;

pub(crate) use self::args::Args;
use super::{Block, Directive, Fault, Line, Surroundings, Word, parse};
use crate::config::{FaceConfig, PORT, ServerConfig, TLS_PORT, Transport, ZoneName};

/// A Corefile as configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// What it says.
    pub config: FaceConfig,
    /// What it says that changes nothing here.
    pub notes: Vec<Fault>,
}

/// Reads and checks a Corefile.
pub fn read(text: &str, file: &Path, surroundings: &dyn Surroundings) -> Result<Translated, Fault> {
    let blocks = parse(text, file, surroundings)?;
    let mut translation = Translation::default();
    for block in &blocks {
        translation.block(block)?;
    }
    let Translation { config, notes, .. } = translation;
    // A block is there because it has a key.
    let place = |number: usize| blocks[number].keys[0].spot.clone();
    config.check(place)?;
    Ok(Translated { config, notes })
}

/// How a directive is taken.
#[derive(Clone, Copy)]
enum How {
    Read(fn(&mut Translation, &Directive) -> Result<(), Fault>),
    /// It is always so here, or has no meaning here.
    Note(&'static str),
    Refuse(&'static str),
}

/// All directives, in the order of CoreDNS' plugin.cfg, which is that of the chain.
const DIRECTIVES: &[(&str, How)] = &[
    ("root", How::Refuse("it is only about directives that are not supported")),
    ("metadata", How::Refuse("nothing here reads metadata")),
    ("geoip", How::Refuse("nothing here reads metadata")),
    ("cancel", How::Note("every query ends in time here")),
    ("proxyproto", How::Refuse("the PROXY protocol is not supported")),
    ("tls", How::Read(watching::tls)),
    ("quic", How::Refuse("DNS over QUIC is not supported")),
    ("grpc_server", How::Refuse("DNS over gRPC is not supported")),
    ("https", How::Refuse("DNS over HTTPS is not supported")),
    ("https3", How::Refuse("DNS over HTTPS is not supported")),
    ("timeouts", How::Note("time limits of connections are fixed here")),
    ("multisocket", How::Note("there is a socket for each core always")),
    ("reload", How::Read(watching::reload)),
    ("nsid", How::Read(watching::nsid)),
    ("bufsize", How::Read(watching::bufsize)),
    ("bind", How::Read(watching::bind)),
    ("debug", How::Note("say RUST_LOG=debug instead")),
    ("trace", How::Refuse("tracing is not supported; portolan dig +trace shows one query")),
    ("ready", How::Read(watching::ready)),
    ("health", How::Read(watching::health)),
    ("pprof", How::Refuse("there is no Go runtime to look into")),
    ("shed", How::Note("work is bounded always")),
    ("prometheus", How::Read(watching::prometheus)),
    ("errors", How::Read(watching::errors)),
    ("log", How::Read(watching::log)),
    ("dnstap", How::Refuse("dnstap is not supported; log writes what was asked")),
    ("local", How::Read(watching::local)),
    ("dns64", How::Refuse("DNS64 is not supported")),
    ("any", How::Read(watching::any)),
    ("chaos", How::Refuse("class CH is not served")),
    ("loadbalance", How::Read(watching::loadbalance)),
    ("tsig", How::Refuse("TSIG is not supported")),
    ("rewrite", How::Read(shaping::rewrite)),
    ("autopath", How::Read(serving::autopath)),
    ("acl", How::Read(shaping::acl)),
    ("cache", How::Read(upstream::cache)),
    ("header", How::Read(shaping::header)),
    ("dnssec", How::Refuse("zones are not signed here")),
    ("minimal", How::Read(watching::minimal)),
    ("template", How::Read(shaping::template)),
    ("transfer", How::Read(serving::transfer)),
    ("hosts", How::Read(serving::hosts)),
    ("route53", How::Refuse("it is not supported")),
    ("azure", How::Refuse("it is not supported")),
    ("clouddns", How::Refuse("it is not supported")),
    ("k8s_external", How::Read(serving::k8s_external)),
    ("kubernetes", How::Read(serving::kubernetes)),
    ("file", How::Refuse("zone files are not supported; hosts and template make records")),
    ("auto", How::Refuse("zone files are not supported; hosts and template make records")),
    ("secondary", How::Refuse("zones of others are not served; forward asks for them")),
    ("etcd", How::Refuse("it is not supported")),
    ("loop", How::Read(watching::loops)),
    ("forward", How::Read(upstream::forward)),
    ("proxy", How::Refuse("CoreDNS has dropped it; write forward")),
    ("grpc", How::Refuse("DNS over gRPC is not supported")),
    ("erratic", How::Refuse("it is for tests of clients")),
    ("whoami", How::Refuse("it is for tests of servers")),
    ("on", How::Refuse("commands are not run here")),
    ("sign", How::Refuse("zones are not signed here")),
    ("view", How::Refuse("views are not supported; acl tells clients apart")),
    ("nomad", How::Refuse("it is not supported")),
];

/// The names of directives that do something here.
pub(crate) fn known() -> String {
    let read = DIRECTIVES.iter().filter(|(_, how)| matches!(how, How::Read(_)));
    let mut names: Vec<&str> = read.map(|(name, _)| *name).chain(["import"]).collect();
    names.sort_unstable();
    names.join(", ")
}

/// The configuration as far as it is read.
#[derive(Default)]
pub(crate) struct Translation {
    pub(crate) config: FaceConfig,
    pub(crate) notes: Vec<Fault>,
    /// The block that is read now.
    pub(crate) server: ServerConfig,
}

impl Translation {
    fn block(&mut self, block: &Block) -> Result<(), Fault> {
        // What a Corefile does not ask for is off.
        self.server = ServerConfig {
            zones: Vec::new(),
            errors: false,
            r#loop: false,
            loadbalance: false,
            ..ServerConfig::default()
        };
        for (number, key) in block.keys.iter().enumerate() {
            self.key(number, key)?;
        }
        for directive in &block.directives {
            let name = &directive.head.name;
            match DIRECTIVES.iter().find(|(known, _)| *known == name.text) {
                Some((_, How::Read(read))) => read(self, directive)?,
                Some((_, How::Note(why))) => self.note(name, why),
                Some((_, How::Refuse(why))) => {
                    return Err(Fault::new(&name.spot, format!("{}: {why}", name.text)));
                }
                None => {
                    let text = format!("unknown directive {:?}; known are {}", name.text, known());
                    return Err(Fault::new(&name.spot, text));
                }
            }
        }
        self.config.servers.push(std::mem::take(&mut self.server));
        Ok(())
    }

    /// `[scheme://]zone[:port]`, where the zone may be a range of addresses.
    fn key(&mut self, number: usize, key: &Word) -> Result<(), Fault> {
        let refused = |text: String| Fault::new(&key.spot, text);
        let (scheme, rest) = key.text.split_once("://").unwrap_or(("dns", &key.text));
        let (transport, port) = match scheme {
            "dns" => (Transport::Dns, PORT),
            "tls" => (Transport::Tls, TLS_PORT),
            _ => {
                let text = format!("{scheme}:// is not supported; there are dns:// and tls://");
                return Err(refused(text));
            }
        };
        let (zone, port) = match rest.rsplit_once(':') {
            Some((_, "")) => {
                return Err(refused(format!("expected a port behind {:?}", key.text)));
            }
            Some((zone, digits)) if digits.chars().all(|c| c.is_ascii_digit()) => {
                let port = digits.parse();
                (zone, port.map_err(|_| refused(format!("{digits} is no port")))?)
            }
            _ => (rest, port),
        };
        if number > 0 && (transport, port) != (self.server.transport, self.server.port) {
            let text = "all addresses of a block must have one scheme and port here; write two \
                        blocks, and share their directives by a snippet";
            return Err(refused(text.to_owned()));
        }
        self.server.transport = transport;
        self.server.port = port;
        let zone = if zone.is_empty() { "." } else { zone };
        self.server.zones.extend(ZoneName::all_of(zone).map_err(refused)?);
        Ok(())
    }

    /// Remarks that a word changes nothing here.
    pub(crate) fn note(&mut self, word: &Word, why: &str) {
        self.notes.push(Fault::new(&word.spot, format!("{}: {why}", word.text)));
    }
}

/// Refuses a line that the directive does not have.
pub(crate) fn unknown_option(directive: &Directive, line: &Line, known: &str) -> Fault {
    let text = format!(
        "unknown option {:?} of {}; known are {known}",
        line.name.text, directive.head.name.text
    );
    Fault::new(&line.name.spot, text)
}

/// Refuses a directive that is given twice.
pub(crate) fn once(directive: &Directive, given: bool) -> Result<(), Fault> {
    if given {
        let name = &directive.head.name;
        return Err(Fault::new(&name.spot, format!("{} is given twice in this block", name.text)));
    }
    Ok(())
}

/// Refuses options where there are none.
pub(crate) fn no_body(directive: &Directive) -> Result<(), Fault> {
    match directive.body.first() {
        Some(line) => {
            let text = format!("{} has no options", directive.head.name.text);
            Err(Fault::new(&line.name.spot, text))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

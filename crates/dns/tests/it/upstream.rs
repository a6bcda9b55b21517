//! An upstream server that says what a test wants, over UDP and TCP on loopback,
//! and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use domain::{
    base::{
        Message, MessageBuilder, Name, Rtype, Serial, Ttl,
        iana::{Class, Rcode},
        record::ComposeRecord,
    },
    rdata::{A, Cname, Ns, Soa},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

/// One query as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) tcp: bool,
    pub(crate) from: SocketAddr,
    pub(crate) packet: Vec<u8>,
    /// In lower case, without the last dot.
    pub(crate) name: String,
    pub(crate) kind: Rtype,
    /// How many came before it.
    pub(crate) number: usize,
}

impl Heard {
    pub(crate) fn id(&self) -> u16 {
        u16::from_be_bytes([self.packet[0], self.packet[1]])
    }

    /// A reply with records as text: `NAME TTL IN TYPE DATA`.
    pub(crate) fn reply(&self, rcode: Rcode, answer: &[&str], authority: &[&str]) -> Vec<u8> {
        let query = Message::from_slice(&self.packet).unwrap();
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_ra(true);
        let mut section = builder.start_answer(query, rcode).unwrap();
        for line in answer {
            section.push(record(line)).unwrap();
        }
        let mut section = section.authority();
        for line in authority {
            section.push(record(line)).unwrap();
        }
        section.finish()
    }

    pub(crate) fn records(&self, answer: &[&str]) -> Vec<u8> {
        self.reply(Rcode::NOERROR, answer, &[])
    }
}

fn record(line: &str) -> Box<dyn ComposeAny> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let name = |text: &str| Name::vec_from_str(text).unwrap();
    let (owner, ttl) = (name(fields[0]), Ttl::from_secs(fields[1].parse().unwrap()));
    match fields[3] {
        "A" => Box::new((owner, Class::IN, ttl, A::new(fields[4].parse().unwrap()))),
        "CNAME" => Box::new((owner, Class::IN, ttl, Cname::new(name(fields[4])))),
        "NS" => Box::new((owner, Class::IN, ttl, Ns::new(name(fields[4])))),
        "SOA" => {
            let seconds = |place: usize| Ttl::from_secs(fields[place].parse().unwrap());
            let (mname, rname) = (name(fields[4]), name(fields[5]));
            let times = [seconds(7), seconds(8), seconds(9), seconds(10)];
            let soa = Soa::new(mname, rname, Serial(1), times[0], times[1], times[2], times[3]);
            Box::new((owner, Class::IN, ttl, soa))
        }
        other => panic!("{other} is not made here"),
    }
}

/// `ComposeRecord` for a target that is known.
trait ComposeAny {
    fn compose(&self, target: &mut Vec<u8>);
}

impl<T: ComposeRecord> ComposeAny for T {
    fn compose(&self, target: &mut Vec<u8>) {
        self.compose_record(target).unwrap();
    }
}

impl ComposeRecord for Box<dyn ComposeAny> {
    fn compose_record<Target: domain::base::wire::Composer + ?Sized>(
        &self,
        target: &mut Target,
    ) -> Result<(), Target::AppendError> {
        let mut bytes = Vec::new();
        (**self).compose(&mut bytes);
        target.append_slice(&bytes)
    }
}

type Say = Arc<dyn Fn(&Heard) -> Option<Vec<u8>> + Send + Sync>;

/// The server; it ends when it is dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub(crate) async fn start(
        say: impl Fn(&Heard) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (listener, socket) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
                break (listener, socket);
            }
        };
        let address = listener.local_addr().unwrap();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let say: Say = Arc::new(say);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(socket, heard.clone(), say.clone()));
        tasks.spawn(serve_tcp(listener, heard.clone(), say));
        Self { address, heard, _tasks: tasks }
    }

    /// What it was asked, without the probes for loops.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

fn hear(heard: &Mutex<Vec<Heard>>, tcp: bool, from: SocketAddr, packet: &[u8]) -> Heard {
    let message = Message::from_slice(packet).unwrap();
    let question = message.sole_question().unwrap();
    let mut list = heard.lock().unwrap();
    let new = Heard {
        tcp,
        from,
        packet: packet.to_vec(),
        name: question.qname().to_string().to_ascii_lowercase(),
        kind: question.qtype(),
        number: list.len(),
    };
    if new.kind != Rtype::HINFO {
        list.push(new.clone());
    }
    new
}

async fn serve_udp(socket: UdpSocket, heard: Arc<Mutex<Vec<Heard>>>, say: Say) {
    let mut packet = vec![0; 65_535];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut packet).await else { continue };
        let query = hear(&heard, false, client, &packet[..length]);
        if let Some(reply) = say(&query) {
            socket.send_to(&reply, client).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, heard: Arc<Mutex<Vec<Heard>>>, say: Say) {
    loop {
        let (mut stream, client) = listener.accept().await.unwrap();
        let Ok(length) = stream.read_u16().await else { continue };
        let mut packet = vec![0; usize::from(length)];
        stream.read_exact(&mut packet).await.unwrap();
        let query = hear(&heard, true, client, &packet);
        if let Some(reply) = say(&query) {
            let mut message = u16::try_from(reply.len()).unwrap().to_be_bytes().to_vec();
            message.extend(reply);
            // The client may have gone.
            drop(stream.write_all(&message).await);
        }
    }
}

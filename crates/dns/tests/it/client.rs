//! A server on a free port, and clients that speak to it byte by byte.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use domain::base::{
    Message, MessageBuilder, Name, ToName,
    iana::{Class, Rtype},
};
use portolan_catalog::Hub;
use portolan_dns::{Config, Running, Settings, config::FaceConfig, start};
use portolan_runtime::{Metrics, Readiness, Shutdown, SystemClock, Tasks};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// Long enough for a machine that is busy with other tests; nothing waits for
/// it unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long silence has to last to be believed.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// A face with everything around it.
pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) tasks: Tasks,
}

impl Server {
    pub(crate) async fn start(hub: Arc<Hub>, settings: Settings) -> Self {
        Self::by(hub, settings, None).await
    }

    /// One with server blocks.
    pub(crate) async fn by(hub: Arc<Hub>, settings: Settings, face: Option<FaceConfig>) -> Self {
        let config = Config {
            face,
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            workers: std::num::NonZeroUsize::new(2),
            settings,
            ..Config::default()
        };
        let metrics = Metrics::new();
        let readiness = Readiness::new();
        let tasks = Tasks::new(Shutdown::new());
        let running =
            start(config, hub, Arc::new(SystemClock), &metrics, &readiness, &tasks).await.unwrap();
        Self { running, metrics, readiness, tasks }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.addresses()[0]
    }

    pub(crate) async fn stop(self) {
        self.tasks.shutdown().cancel();
        self.tasks.finish(PATIENCE).await;
    }
}

/// A question to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) name: Name<Vec<u8>>,
    pub(crate) kind: Rtype,
    pub(crate) class: Class,
    /// UDP size and version.
    pub(crate) edns: Option<(u16, u8)>,
}

impl Ask {
    pub(crate) fn new(name: &str, kind: Rtype) -> Self {
        Self { name: Name::vec_from_str(name).unwrap(), kind, class: Class::IN, edns: None }
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(0x4711);
        builder.header_mut().set_rd(true);
        let mut question = builder.question();
        question.push((self.name.to_name::<Vec<u8>>(), self.kind, self.class)).unwrap();
        let mut additional = question.additional();
        if let Some((size, version)) = self.edns {
            additional
                .opt(|opt| {
                    opt.set_udp_payload_size(size);
                    opt.set_version(version);
                    Ok(())
                })
                .unwrap();
        }
        additional.finish()
    }
}

/// Sends a packet over UDP; `None`: no reply came.
pub(crate) async fn udp(server: SocketAddr, packet: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(packet).await.unwrap();
    let mut reply = vec![0; 65_535];
    let length = timeout(patience, socket.recv(&mut reply)).await.ok()?.unwrap();
    reply.truncate(length);
    Some(reply)
}

/// Sends a packet over TCP; `None`: the connection was closed instead.
pub(crate) async fn tcp(server: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let length = u16::try_from(packet.len()).unwrap();
    stream.write_all(&length.to_be_bytes()).await.unwrap();
    stream.write_all(packet).await.unwrap();
    read_message(&mut stream).await
}

/// Reads one message with its length.
pub(crate) async fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let read = async {
        let length = stream.read_u16().await.ok()?;
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await.ok()?;
        Some(message)
    };
    timeout(PATIENCE, read).await.expect("the server neither answers nor closes")
}

/// A reply as `domain` reads it.
pub(crate) fn message(bytes: Vec<u8>) -> Message<Vec<u8>> {
    Message::from_octets(bytes).expect("the reply is no message")
}

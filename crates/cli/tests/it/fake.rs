//! A server of canned answers, and the verbs run against it.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser;
use portolan_cli::{
    args::Cli,
    output::{Exit, Output},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A test that hangs fails after this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An answer to one request.
pub(crate) enum Answer {
    Json(u16, String),
    /// Events of a stream, which then ends or stays open.
    Events(Vec<String>, bool),
}

/// Answers requests, and remembers their paths.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub(crate) async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (answer, seen) = (Arc::new(answer), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone(), seen.clone()));
            }
        });
        Self { address, asked }
    }

    /// The paths that were asked for, with their queries.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Runs a verb against this server.
    pub(crate) async fn run(&self, words: &str) -> Ran {
        let buffers = (Buffer::default(), Buffer::default());
        self.run_into(words, &buffers.0, &buffers.1).await
    }

    /// Runs a verb; its words can be read while it runs.
    pub(crate) async fn run_into(&self, words: &str, out: &Buffer, err: &Buffer) -> Ran {
        let server = format!("http://{}", self.address);
        let words = ["portolan", "--server", &server].into_iter().chain(words.split(' '));
        let cli = Cli::try_parse_from(words).unwrap();
        let mut output = Output::to(out.clone(), err.clone());
        let ended = tokio::time::timeout(PATIENCE, portolan_cli::run(&cli, &mut output)).await;
        let ended = ended.expect("the verb ends").expect("a reading verb");
        let (exit, failure) = match ended {
            Ok(exit) => (exit, String::new()),
            Err(failure) => {
                (failure.exit(), format!("{failure}; {}", failure.hint().unwrap_or_default()))
            }
        };
        Ran { exit, failure, out: out.text(), err: err.text() }
    }
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) failure: String,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// What was written, readable from outside.
#[derive(Clone, Default)]
pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Waits until the text holds some words.
    pub(crate) async fn holds(&self, words: &str) {
        let poll = async {
            while !self.text().contains(words) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let held = tokio::time::timeout(PATIENCE, poll).await;
        assert!(held.is_ok(), "{words:?} in {:?}", self.text());
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: Arc<impl Fn(&str) -> Answer + Send + Sync + 'static>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    asked.lock().unwrap().push(path.clone());
    match answer(&path) {
        Answer::Json(status, body) => {
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
        }
        Answer::Events(events, open) => {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok();
            for event in events {
                stream.write_all(event.as_bytes()).await.ok();
            }
            if open {
                // Until the client goes.
                stream.read_u8().await.ok();
            }
        }
    }
}

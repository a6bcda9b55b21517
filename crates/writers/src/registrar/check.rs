//! Whether a process accepts connections, and when that counts as a change.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};

/// Kubernetes' probes: one success, three failures, a second for each.
const FAILURES: u32 = 3;
const WITHIN: Duration = Duration::from_secs(1);

/// What checks say of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// All its places accept connections.
    Accepts,
    /// One does not, and why.
    Refuses(String),
}

/// Connects to each place and hangs up.
pub(super) async fn check(places: &[SocketAddr]) -> Health {
    for place in places {
        match timeout(WITHIN, TcpStream::connect(place)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Health::Refuses(format!("tcpSocket {place}: {error}")),
            Err(_) => return Health::Refuses(format!("tcpSocket {place}: no answer within 1 s")),
        }
    }
    Health::Accepts
}

/// Turns checks into a health that does not flap: one success makes ready,
/// only several failures in a row make not ready.
pub(super) struct Judge {
    health: Health,
    failures: u32,
}

impl Judge {
    /// Begins with what the first check said.
    pub(super) fn new(health: Health) -> Self {
        Self { health, failures: 0 }
    }

    /// The judgement.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Takes a check into account.
    pub(super) fn take(&mut self, checked: Health) {
        match checked {
            Health::Accepts => {
                self.failures = 0;
                self.health = Health::Accepts;
            }
            Health::Refuses(why) => {
                self.failures += 1;
                if self.health == Health::Accepts && self.failures >= FAILURES {
                    self.health = Health::Refuses(why);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_success_three_failures() {
        let refuses = || Health::Refuses("x".into());
        let mut judge = Judge::new(refuses());
        for (checked, accepts) in [
            (refuses(), false),
            (Health::Accepts, true),
            (refuses(), true),
            (refuses(), true),
            (Health::Accepts, true),
            (refuses(), true),
            (refuses(), true),
            (refuses(), false),
            (Health::Accepts, true),
        ] {
            judge.take(checked.clone());
            assert_eq!(*judge.health() == Health::Accepts, accepts, "{checked:?}");
        }
    }

    #[tokio::test]
    async fn listens_or_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        assert_eq!(check(&[place]).await, Health::Accepts);
        drop(listener);
        let Health::Refuses(why) = check(&[place]).await else { panic!("accepted") };
        assert!(why.contains(&place.to_string()), "{why}");
        assert_eq!(check(&[]).await, Health::Accepts);
    }
}

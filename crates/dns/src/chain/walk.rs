//! Taking a request through the stages.
//!
//! The walk is the one part that waits. It is polled once where the query came in;
//! most walks end there, and the rest become tasks.

use std::{
    future::Future,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Waker},
};

use domain::base::iana::Class;

use super::{Block, Body, Chain, Chase, Refused, Request, Response, Step};
use crate::{
    answer::{Answer, Refusal},
    forward::{Ask, Forwarder, Lookup, NOERROR, NXDOMAIN, SERVFAIL},
    message::Question,
    name::{DnsName, text},
    names::Names,
    trace,
    wire::Rcode,
};

/// Walks that one query may set off by aliases: ours, then a template's, then an
/// upstream's, and one more.
const DEPTH_MAX: usize = 4;

/// The extended error of names that nobody here answers for (RFC 8914, 4.21).
const EDE_NOT_AUTHORITATIVE: u16 = 20;

/// The extended error without a number of its own (RFC 8914, 4.1).
const EDE_OTHER: u16 = 0;

/// What a walk came to.
pub(crate) enum Outcome {
    Reply(Response),
    /// No reply at all; why.
    Silence(&'static str),
}

/// Everything that a walk reads.
#[derive(Clone)]
pub(crate) struct Walk {
    pub(crate) chain: Arc<Chain>,
    pub(crate) names: Arc<Names>,
    /// Nobody is asked: only what would be done is of interest.
    pub(crate) dry: bool,
}

type Steps<'t> = Option<&'t mut Vec<trace::Step>>;

fn say(steps: &mut Steps<'_>, stage: &'static str, text: impl FnOnce() -> String) {
    if let Some(steps) = steps {
        steps.push(trace::Step { stage, text: text() });
    }
}

impl Walk {
    /// Takes a request through the stages of its block.
    pub(crate) async fn run(&self, request: &mut Request, steps: Steps<'_>) -> Outcome {
        // No stage looks at the class, and upstream servers are asked for IN only.
        if request.question.class != Class::IN {
            return Outcome::Reply(Response::of("", Answer::Refused(Refusal::Class)));
        }
        let mut outcome = self.block(request, 0, steps).await;
        if let Outcome::Reply(response) = &mut outcome
            && !response.is_about(&request.query.question)
            && response.parts().is_none()
        {
            // Bytes of another question do not fit under this one.
            *response = refused(response.by, Rcode::ServFail, EDE_OTHER, "a reply does not parse");
        }
        outcome
    }

    /// Writes down what becomes of a question. Nobody is asked, so it does not wait.
    pub(crate) fn explain(&self, question: Question, client: IpAddr, steps: &mut Vec<trace::Step>) {
        let mut request = Request::new(question, client);
        let mut walk = pin!(self.run(&mut request, Some(steps)));
        let waits = walk.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        debug_assert!(!waits, "a dry walk asks nobody");
    }

    fn block<'w>(
        &'w self,
        request: &'w mut Request,
        depth: usize,
        mut steps: Steps<'w>,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'w>> {
        Box::pin(async move {
            match self.chain.block_of(&request.question) {
                Some(block) => self.stages(block, 0, request, depth, steps).await,
                None => {
                    say(&mut steps, "block", || "no server block holds the name".to_owned());
                    Outcome::Reply(refused("", Rcode::Refused, EDE_NOT_AUTHORITATIVE, ""))
                }
            }
        })
    }

    /// From one stage of a block on.
    fn stages<'w>(
        &'w self,
        block: &'w Block,
        first: usize,
        request: &'w mut Request,
        depth: usize,
        mut steps: Steps<'w>,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'w>> {
        Box::pin(async move {
            let mut at = first;
            let mut outcome = None;
            while let Some(stage) = block.stages.get(at) {
                let before = request.question.clone();
                if let Some(steps) = &mut steps {
                    steps.extend(stage.explain(request, &self.names));
                }
                let step = stage.enter(request, &self.names);
                at += 1;
                let reached = match step {
                    Step::Next(why) => {
                        let after = &request.question;
                        if before.name != after.name || before.kind != after.kind {
                            say(&mut steps, stage.name(), || {
                                format!("{why}: now {} {}", text(&after.name), after.kind)
                            });
                        } else {
                            say(&mut steps, stage.name(), || format!("next: {why}"));
                        }
                        continue;
                    }
                    Step::Answer(response) => {
                        say(&mut steps, stage.name(), || told(&response));
                        Outcome::Reply(response)
                    }
                    Step::Refuse(Refused { rcode, error, why }) => {
                        say(&mut steps, stage.name(), || format!("refused: {why}"));
                        Outcome::Reply(Response::bare(stage.name(), rcode, error))
                    }
                    Step::Drop(why) => {
                        say(&mut steps, stage.name(), || format!("dropped: {why}"));
                        Outcome::Silence(why)
                    }
                    Step::Ask(forwarder, ask) => {
                        say(&mut steps, stage.name(), || {
                            format!(
                                "upstream servers are asked for {} {}",
                                text(&ask.name),
                                ask.kind
                            )
                        });
                        self.ask(stage.name(), &forwarder, ask).await
                    }
                    Step::Chase(chase) => {
                        say(&mut steps, stage.name(), || {
                            let count = chase.aliases.len();
                            format!("{count} alias records, on to {}", text(&chase.target))
                        });
                        let by = stage.name();
                        self.chase(by, chase, request, depth, steps.as_deref_mut()).await
                    }
                    Step::Search(list) => {
                        let steps = steps.as_deref_mut();
                        self.search(block, at, list, request, depth, steps).await
                    }
                };
                outcome = Some(reached);
                break;
            }
            let outcome = outcome.unwrap_or_else(|| {
                say(&mut steps, "end", || "no stage answers: REFUSED".to_owned());
                Outcome::Reply(Response::of("", Answer::Refused(Refusal::OutsideZones)))
            });
            match outcome {
                Outcome::Reply(mut response) => {
                    for stage in block.stages.get(first..at).unwrap_or_default().iter().rev() {
                        stage.leave(request, &mut response);
                    }
                    Outcome::Reply(response)
                }
                silence => silence,
            }
        })
    }

    async fn ask(&self, by: &'static str, forwarder: &Forwarder, ask: Ask) -> Outcome {
        if self.dry {
            return Outcome::Reply(Response::bare(by, NOERROR, None));
        }
        let found = match forwarder.lookup(&ask) {
            Lookup::Now(found) => found,
            Lookup::Later(pending) => forwarder.wait(*pending).await,
        };
        Outcome::Reply(match found {
            Ok(found) => Response::found(by, found),
            Err(failed) => {
                let (number, why) = failed.extended();
                refused(by, Rcode::ServFail, number, why)
            }
        })
    }

    /// Asks the whole server for the end of an alias (RFC 1034, 3.6.2; the result code
    /// is that of the end, RFC 6604, 3).
    async fn chase(
        &self,
        by: &'static str,
        chase: Chase,
        request: &Request,
        depth: usize,
        steps: Steps<'_>,
    ) -> Outcome {
        let Chase { aliases, target, follows_rcode } = chase;
        let mut response = Response::records(by, aliases);
        if depth >= DEPTH_MAX {
            return Outcome::Reply(refused(by, Rcode::ServFail, EDE_OTHER, "too many aliases"));
        }
        let mut further = request.clone();
        further.question.name = target;
        further.reverts = Default::default();
        let end = match self.block(&mut further, depth + 1, steps).await {
            Outcome::Reply(end) => end,
            silence => return silence,
        };
        let good = matches!(end.rcode, NOERROR | NXDOMAIN);
        match (follows_rcode, good) {
            // Nobody is asked for names outside: the client has to ask on.
            (true, false) if end.rcode == Rcode::Refused as u16 => return Outcome::Reply(response),
            (true, false) => {
                return Outcome::Reply(Response {
                    error: end.error,
                    authoritative: true,
                    ..Response::bare(by, SERVFAIL, None)
                });
            }
            (true, true) => response.rcode = end.rcode,
            (false, _) => {}
        }
        let mut end = end;
        response.truncated = end.truncated;
        if let (Some([answer, authority, additional]), Some(more)) = (response.parts(), end.parts())
        {
            let [more_answer, more_authority, more_additional] = more;
            answer.append(more_answer);
            if follows_rcode {
                authority.append(more_authority);
                additional.append(more_additional);
            }
        }
        Outcome::Reply(response)
    }

    /// Asks for one name after the other; the first that exists is the answer, under
    /// the name that was asked for.
    async fn search(
        &self,
        block: &Block,
        at: usize,
        list: Vec<DnsName>,
        request: &mut Request,
        depth: usize,
        mut steps: Steps<'_>,
    ) -> Outcome {
        let asked = request.question.name.clone();
        let mut first = None;
        for (number, name) in list.into_iter().enumerate() {
            let mut attempt = request.clone();
            attempt.question.name = name.clone();
            say(&mut steps, "autopath", || format!("try {}", text(&name)));
            let outcome = self.stages(block, at, &mut attempt, depth, steps.as_deref_mut()).await;
            let Outcome::Reply(mut response) = outcome else { return outcome };
            if matches!(response.rcode, NOERROR) {
                if number > 0 {
                    super::autopath::alias(&asked, &name, &mut response);
                }
                return Outcome::Reply(response);
            }
            // Whatever fails, the client may walk its search path itself.
            first.get_or_insert(response);
        }
        match first {
            Some(response) => Outcome::Reply(response),
            None => self.stages(block, at, request, depth, steps).await,
        }
    }
}

fn refused(by: &'static str, rcode: Rcode, number: u16, why: &str) -> Response {
    Response::bare(by, rcode as u16, Some((number, why.to_owned())))
}

fn told(response: &Response) -> String {
    let rcode = crate::wire::rcode_text(response.rcode);
    match &response.body {
        Body::Records { answer, .. } => format!("{rcode}, {} records", answer.len()),
        Body::Found(_) => rcode.to_owned(),
    }
}

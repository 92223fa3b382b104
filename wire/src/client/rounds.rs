//! Carries a set of requests through, over as many connections and rounds as it takes, and judges what may be tried
//! again: reads always, writes only if they never left whole.

use super::error::ClientError;
use super::link::{Link, Loss};
use super::router::Router;
use crate::reply::Reply;
use crate::request::Request;
use std::hash::{BuildHasher, RandomState};

/// One result a request, in order.
pub fn run(router: &mut Router, requests: &[Request<'_>]) -> Vec<Result<Reply, ClientError>> {
    let mut waiting = Vec::with_capacity(requests.len());
    let mut results = Vec::with_capacity(requests.len());
    for (position, request) in requests.iter().enumerate() {
        // Whoever is not sent has failed: no request is taken for done that was not answered.
        let refused = check_size(router, request);
        if refused.is_none() {
            waiting.push(position);
        }
        results.push(Err(refused.unwrap_or_else(|| unsent(router))));
    }
    let reconnect = router.options().reconnect;
    for retry in 0..=reconnect.retries_max {
        if waiting.is_empty() {
            break;
        }
        if retry > 0 {
            let noise = RandomState::new().hash_one(retry);
            std::thread::sleep(reconnect.delay(retry - 1, noise));
        }
        waiting = round(router, requests, waiting, &mut results);
    }
    results
}

/// What a request comes to for which there was no connection in the end.
fn unsent(router: &Router) -> ClientError {
    let address = router.options().address.to_string();
    ClientError::Connection { address, reason: "the connection was lost before the request was sent".into() }
}

/// Too large is refused here: the server would end the connection over it.
fn check_size(router: &Router, request: &Request<'_>) -> Option<ClientError> {
    let limits = router.welcome().limits;
    let sizes = [
        (request.document_bytes(), limits.document_bytes as usize),
        (request.size_bytes_estimate(), limits.frame_bytes as usize),
    ];
    let over = sizes.into_iter().find(|(size_bytes, size_bytes_max)| size_bytes > size_bytes_max);
    over.map(|(size_bytes, size_bytes_max)| ClientError::TooLarge { size_bytes, size_bytes_max })
}

/// Sends every waiting request once; gives those that may be tried again, their last error standing in `results`.
fn round(
    router: &mut Router,
    requests: &[Request<'_>],
    waiting: Vec<usize>,
    results: &mut [Result<Reply, ClientError>],
) -> Vec<usize> {
    let mut again = Vec::new();
    // Positions by route, in the order asked.
    let mut batches: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut failed: Option<ClientError> = None;
    for position in waiting {
        let wanted = router.route_of(&requests[position]);
        if let Some((_, batch)) = batches.iter_mut().find(|(route, _)| *route == wanted) {
            batch.push(position);
            continue;
        }
        let opened = match &failed {
            Some(error) => Err(error.clone()),
            None => router.open(wanted),
        };
        match opened {
            Ok(route) => match batches.iter_mut().find(|(other, _)| *other == route) {
                Some((_, batch)) => batch.push(position),
                None => batches.push((route, vec![position])),
            },
            Err(error) => {
                failed = Some(error.clone());
                if matches!(error, ClientError::Connection { .. }) {
                    again.push(position);
                }
                results[position] = Err(error);
            }
        }
    }
    for (route, batch) in &batches {
        match router.link(*route) {
            Some(link) => {
                batch.iter().for_each(|position| link.queue(&requests[*position]));
                link.start();
            }
            // Opening a later route ended this one: the primary came back with other shards, or not at all.
            None => {
                again.extend(batch);
                batch.iter().for_each(|position| results[*position] = Err(unsent(router)));
            }
        }
    }
    let timeout = router.options().request_timeout;
    let mut replies = Vec::new();
    for (route, batch) in batches {
        let Some(link) = router.link(route) else { continue };
        let finished = link.finish(timeout, &mut replies);
        for (place, (position, reply)) in batch.into_iter().zip(replies.drain(..)).enumerate() {
            results[position] = match (reply, &finished) {
                (Some(Reply::Error(error)), _) => Err(error.into()),
                (Some(reply), _) => Ok(reply),
                (None, Err(loss)) => {
                    let (error, is_repeatable) = judge(link, loss, &requests[position], link.was_sent(place));
                    if is_repeatable {
                        again.push(position);
                    }
                    Err(error)
                }
                (None, Ok(())) => Err(ClientError::Protocol {
                    address: link.address().to_owned(),
                    reason: "a reply is missing".into(),
                }),
            };
        }
        if finished.is_err() {
            router.close(route);
        }
    }
    again.sort_unstable();
    again
}

/// What an unanswered request came to, and whether it may be sent again.
fn judge(link: &Link, loss: &Loss, request: &Request<'_>, was_sent: bool) -> (ClientError, bool) {
    let address = link.address().to_owned();
    let may_be_done = was_sent && request.is_write();
    match loss {
        Loss::Closed(reason) if !may_be_done => (ClientError::Connection { address, reason: reason.clone() }, true),
        Loss::Timeout(waited) if !may_be_done => (ClientError::Timeout { waited: *waited }, false),
        Loss::Protocol(reason) if !may_be_done => (ClientError::Protocol { address, reason: reason.clone() }, false),
        Loss::Refused(error) if !may_be_done => (error.clone().into(), false),
        Loss::Closed(reason) | Loss::Protocol(reason) => {
            (ClientError::OutcomeUnknown { reason: reason.clone() }, false)
        }
        Loss::Timeout(waited) => (ClientError::OutcomeUnknown { reason: format!("no reply within {waited:?}") }, false),
        Loss::Refused(error) => (ClientError::OutcomeUnknown { reason: error.message.clone() }, false),
    }
}

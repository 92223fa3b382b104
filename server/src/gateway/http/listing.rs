//! Listings: one page as JSON, or all pages as lines of JSON while they are read.

use super::HttpGateway;
use super::body::{BrokenOff, ChunkSource, ReplyBody};
use super::condition::Preconditions;
use super::pace::Pace;
use super::problem::Problem;
use super::reply::{ContentType, Reply};
use super::request::Request;
use super::service::{Context, unexpected};
use crate::auth::Principal;
use crate::command::{Command, Outcome, Page, PageEntry};
use crate::gateway::api::Api;
use crate::limits::{PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX};
use crate::runtime::platform::Clock;
use bytes::Bytes;
use http::StatusCode;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};

/// `GET /entity/{schema}`: a page with a `next` cursor, or everything as lines.
pub async fn list<A: Api, C: Clock>(context: &Context<'_, A, C>, request: &mut Request<'_>) -> Result<Reply, Problem> {
    Preconditions::require_none(request.headers, "on a listing")?;
    let (prefix, after) = request.query.range()?;
    let documents = request.query.wants_documents()?;
    let listing = Listing { schema: request.schema.as_ref().to_owned(), prefix, documents };
    if request.wants_lines() {
        return lines(context, listing, after, request.query.entries()?, request.pace).await;
    }
    let command = listing.page_command(after, request.query.page_entries()?);
    match context.call(command).await? {
        Outcome::Page(page) => Ok(Reply::json(page_json(&page))),
        other => Err(unexpected(&other)),
    }
}

/// What stays the same from page to page.
struct Listing {
    schema: String,
    prefix: String,
    documents: bool,
}

impl Listing {
    fn page_command(&self, after: Option<String>, limit: usize) -> Command<'static> {
        Command::List {
            schema: self.schema.clone().into(),
            prefix: self.prefix.clone().into(),
            after: after.map(Into::into),
            limit,
            documents: self.documents,
        }
    }
}

/// Reads the first page before answering, so that what goes wrong at once has its own status.
async fn lines<A: Api, C: Clock>(
    context: &Context<'_, A, C>,
    listing: Listing,
    after: Option<String>,
    limit: Option<usize>,
    pace: &Rc<Pace>,
) -> Result<Reply, Problem> {
    let remaining = limit.unwrap_or(usize::MAX);
    let page = match context.call(listing.page_command(after, remaining.min(PAGE_ENTRIES_DEFAULT))).await? {
        Outcome::Page(page) => page,
        other => return Err(unexpected(&other)),
    };
    let source = Lines {
        gateway: context.gateway.clone(),
        principal: context.principal.clone(),
        listing,
        remaining,
        state: State::Ready(page),
        pace: pace.clone(),
    };
    Ok(Reply::of(StatusCode::OK, ContentType::Lines, ReplyBody::Chunks(Box::new(source))))
}

/// A listing in progress: one page in memory at a time, the next asked for when the last is on its way.
struct Lines<A: Api, C: Clock> {
    gateway: Rc<HttpGateway<A, C>>,
    principal: Principal,
    listing: Listing,
    remaining: usize,
    state: State,
    pace: Rc<Pace>,
}

enum State {
    Ready(Page),
    Due(String),
    Waiting(Pin<Box<dyn Future<Output = Outcome>>>),
    Broken,
    Ended,
}

impl<A: Api, C: Clock> Lines<A, C> {
    fn render(&mut self, page: Page) -> Bytes {
        let mut text = Vec::new();
        for entry in page.entries.iter().take(self.remaining) {
            write_entry(&mut text, entry, true);
            text.push(b'\n');
        }
        self.remaining = self.remaining.saturating_sub(page.entries.len());
        self.state = match page.next {
            Some(after) if self.remaining > 0 => State::Due(after),
            _ => State::Ended,
        };
        text.into()
    }
}

impl<A: Api, C: Clock> ChunkSource for Lines<A, C> {
    fn poll_chunk(&mut self, context: &mut std::task::Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => {
                    self.pace.reply_ends();
                    return Poll::Ready(None);
                }
                State::Broken => return Poll::Ready(Some(Err(BrokenOff))),
                State::Ready(page) => {
                    self.pace.reply_begins();
                    let text = self.render(page);
                    if !text.is_empty() {
                        return Poll::Ready(Some(Ok(text)));
                    }
                }
                State::Due(after) => {
                    self.pace.works();
                    let command = self.listing.page_command(Some(after), self.remaining.min(PAGE_ENTRIES_MAX));
                    self.state = State::Waiting(Box::pin(self.gateway.api.call(&self.principal, command)));
                }
                State::Waiting(mut page) => {
                    let polled = page.as_mut().poll(context);
                    if polled.is_pending() {
                        self.state = State::Waiting(page);
                    }
                    match ready!(polled) {
                        Outcome::Page(page) => self.state = State::Ready(page),
                        _ => {
                            // Once around, so that what came before is sent before the connection is cut.
                            self.state = State::Broken;
                            self.pace.reply_begins();
                            context.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                    }
                }
            }
        }
    }
}

impl<A: Api, C: Clock> Drop for Lines<A, C> {
    fn drop(&mut self) {
        self.pace.reply_ends();
    }
}

fn page_json(page: &Page) -> Vec<u8> {
    let documents: usize =
        page.entries.iter().filter_map(|entry| entry.document.as_ref()).map(|d| d.body().len()).sum();
    let mut text = Vec::with_capacity(64 + page.entries.len() * 64 + documents);
    text.extend_from_slice(b"{\"entries\":[");
    for (position, entry) in page.entries.iter().enumerate() {
        if position > 0 {
            text.push(b',');
        }
        write_entry(&mut text, entry, false);
    }
    text.extend_from_slice(b"],\"next\":");
    write_json(&mut text, &page.next);
    text.push(b'}');
    text
}

/// `{"key":…,"version":…[,"document":…]}`, the document as it was stored; on one line if asked.
fn write_entry(text: &mut Vec<u8>, entry: &PageEntry, on_one_line: bool) {
    text.extend_from_slice(b"{\"key\":");
    write_json(text, &entry.key);
    text.extend_from_slice(b",\"version\":");
    write_json(text, &entry.version);
    if let Some(document) = &entry.document {
        text.extend_from_slice(b",\"document\":");
        let start = text.len();
        text.extend_from_slice(document.body());
        if on_one_line {
            // In valid JSON a line break is only ever white space between tokens.
            let document = text.get_mut(start..).unwrap_or_default();
            document.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        }
    }
    text.push(b'}');
}

fn write_json(text: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Strings and numbers into memory: this cannot fail, and nothing would be written if it did.
    let _ = serde_json::to_writer(text, value);
}

//! RFC 8259 to the letter, without recursion: the judge of what the fast parser refuses.
//!
//! It is slower, and it allocates when nodes are asked for; only unusual or broken documents come here. A number too
//! large for a double is taken as the largest double, an unpaired surrogate escape as U+FFFD; both only matter to
//! validation, since what is stored is what was sent.

use super::{Malformed, Node};
use crate::limits::JSON_DEPTH_MAX;
use simd_json::StaticNode;

/// Whether the document is JSON.
pub fn check(document: &[u8]) -> Result<(), Malformed> {
    scan(document, &mut Nothing)
}

/// Parses a document into nodes that own their text.
pub fn parse(document: &[u8]) -> Result<Parsed, Malformed> {
    let mut parsed = Parsed { text: String::new(), events: Vec::new(), open: Vec::new() };
    scan(document, &mut parsed)?;
    Ok(parsed)
}

/// A parsed document.
pub struct Parsed {
    /// All strings, unescaped, one after the other.
    text: String,
    events: Vec<Event>,
    /// Positions of the containers that are not closed yet.
    open: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Event {
    String { start: usize, end: usize },
    Container { is_object: bool, len: usize, count: usize },
    Plain(StaticNode),
}

impl Parsed {
    /// The nodes, as the fast parser would have made them.
    pub fn nodes(&self) -> Vec<Node<'_>> {
        let node = |event: &Event| match *event {
            Event::String { start, end } => Node::String(&self.text[start..end]),
            Event::Container { is_object: true, len, count } => Node::Object { len, count },
            Event::Container { is_object: false, len, count } => Node::Array { len, count },
            Event::Plain(value) => Node::Static(value),
        };
        self.events.iter().map(node).collect()
    }
}

/// What the scanner tells about a document, in its order.
trait Sink {
    fn container_begins(&mut self, is_object: bool);
    fn container_ends(&mut self, len: usize);
    fn string_begins(&mut self) {}
    fn text(&mut self, _part: &str) {}
    fn character(&mut self, _character: char) {}
    fn string_ends(&mut self);
    fn number(&mut self, literal: &str);
    fn literal(&mut self, value: StaticNode);
}

struct Nothing;

impl Sink for Nothing {
    fn container_begins(&mut self, _is_object: bool) {}
    fn container_ends(&mut self, _len: usize) {}
    fn string_ends(&mut self) {}
    fn number(&mut self, _literal: &str) {}
    fn literal(&mut self, _value: StaticNode) {}
}

impl Sink for Parsed {
    fn container_begins(&mut self, is_object: bool) {
        self.open.push(self.events.len());
        self.events.push(Event::Container { is_object, len: 0, count: 0 });
    }

    fn container_ends(&mut self, members: usize) {
        let Some(position) = self.open.pop() else { return };
        let nodes = self.events.len() - position - 1;
        if let Some(Event::Container { len, count, .. }) = self.events.get_mut(position) {
            (*len, *count) = (members, nodes);
        }
    }

    fn string_begins(&mut self) {
        let start = self.text.len();
        self.events.push(Event::String { start, end: start });
    }

    fn text(&mut self, part: &str) {
        self.text.push_str(part);
    }

    fn character(&mut self, character: char) {
        self.text.push(character);
    }

    fn string_ends(&mut self) {
        if let Some(Event::String { end, .. }) = self.events.last_mut() {
            *end = self.text.len();
        }
    }

    fn number(&mut self, literal: &str) {
        self.events.push(Event::Plain(number_of(literal)));
    }

    fn literal(&mut self, value: StaticNode) {
        self.events.push(Event::Plain(value));
    }
}

/// The value of a well-formed number.
fn number_of(literal: &str) -> StaticNode {
    if let Ok(value) = literal.parse::<u64>() {
        return StaticNode::U64(value);
    }
    if let Ok(value) = literal.parse::<i64>() {
        return StaticNode::I64(value);
    }
    // The grammar of JSON numbers is a part of Rust's, so this does not fail; overflow gives an infinity.
    let value = literal.parse::<f64>().unwrap_or(f64::MAX);
    StaticNode::from(value.clamp(f64::MIN, f64::MAX))
}

fn scan(document: &[u8], sink: &mut impl Sink) -> Result<(), Malformed> {
    let text = std::str::from_utf8(document)
        .map_err(|error| Malformed { offset: error.valid_up_to(), reason: "invalid UTF-8" })?;
    let mut scanner = Scanner { text, position: 0, sink, containers: [Container::default(); JSON_DEPTH_MAX], depth: 0 };
    scanner.document()
}

#[derive(Clone, Copy, Default)]
struct Container {
    is_object: bool,
    len: usize,
}

struct Scanner<'a, S> {
    text: &'a str,
    position: usize,
    sink: &'a mut S,
    /// The open containers, outermost first, in the first `depth` places.
    containers: [Container; JSON_DEPTH_MAX],
    depth: usize,
}

impl<S: Sink> Scanner<'_, S> {
    fn document(&mut self) -> Result<(), Malformed> {
        self.skip_whitespace();
        loop {
            // At the start of a value.
            let begun = self.value()?;
            if begun && !self.is_closed_at_once() {
                self.name_if_in_object()?;
                continue;
            }
            // After a value: close what ends here, then go on to the next value or stop.
            if !self.next_value()? {
                break;
            }
        }
        if self.position < self.text.len() {
            return Err(self.malformed("more text after the end of the document"));
        }
        Ok(())
    }

    /// Takes a whole scalar, or the opening bracket of a container (then true).
    fn value(&mut self) -> Result<bool, Malformed> {
        match self.peek() {
            Some(open @ (b'{' | b'[')) => {
                let Some(slot) = self.containers.get_mut(self.depth) else {
                    return Err(self.malformed("nesting deeper than 128 levels"));
                };
                *slot = Container { is_object: open == b'{', len: 0 };
                self.depth += 1;
                self.position += 1;
                self.sink.container_begins(open == b'{');
                self.skip_whitespace();
                return Ok(true);
            }
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.literal("true", StaticNode::Bool(true))?,
            Some(b'f') => self.literal("false", StaticNode::Bool(false))?,
            Some(b'n') => self.literal("null", StaticNode::Null)?,
            Some(_) => return Err(self.malformed("an unexpected character")),
            None => return Err(self.malformed("unexpected end")),
        }
        Ok(false)
    }

    /// Closes a container that was just opened and is empty.
    fn is_closed_at_once(&mut self) -> bool {
        let is_object = self.innermost().is_some_and(|container| container.is_object);
        let is_empty = self.peek() == Some(if is_object { b'}' } else { b']' });
        if is_empty {
            self.close(0);
        }
        is_empty
    }

    /// After a value: whether another one begins here. False at the end of the root.
    fn next_value(&mut self) -> Result<bool, Malformed> {
        loop {
            self.skip_whitespace();
            let Some(container) = self.innermost() else { return Ok(false) };
            container.len += 1;
            let Container { is_object, len } = *container;
            match self.peek() {
                Some(b',') => {
                    self.position += 1;
                    self.skip_whitespace();
                    self.name_if_in_object()?;
                    return Ok(true);
                }
                Some(b'}') if is_object => self.close(len),
                Some(b']') if !is_object => self.close(len),
                Some(_) => return Err(self.malformed("an unexpected character, where ',' or the end must stand")),
                None => return Err(self.malformed("unexpected end")),
            }
        }
    }

    fn close(&mut self, len: usize) {
        self.position += 1;
        self.depth -= 1;
        self.sink.container_ends(len);
    }

    fn name_if_in_object(&mut self) -> Result<(), Malformed> {
        if !self.innermost().is_some_and(|container| container.is_object) {
            return Ok(());
        }
        if self.peek() != Some(b'"') {
            return Err(self.malformed("no member name in quotes"));
        }
        self.string()?;
        self.skip_whitespace();
        if self.peek() != Some(b':') {
            return Err(self.malformed("no ':' after a member name"));
        }
        self.position += 1;
        self.skip_whitespace();
        Ok(())
    }

    fn literal(&mut self, literal: &str, value: StaticNode) -> Result<(), Malformed> {
        if !self.rest().starts_with(literal.as_bytes()) {
            return Err(self.malformed("an unknown literal"));
        }
        self.position += literal.len();
        self.sink.literal(value);
        Ok(())
    }

    fn number(&mut self) -> Result<(), Malformed> {
        let start = self.position;
        if self.peek() == Some(b'-') {
            self.position += 1;
        }
        match self.peek() {
            Some(b'0') => self.position += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.position += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.position += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.position += 1;
            }
            self.digits()?;
        }
        let literal = self.text.get(start..self.position).unwrap_or_default();
        self.sink.number(literal);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.malformed("a number without a digit here"));
        }
        self.position += count;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Malformed> {
        self.position += 1;
        self.sink.string_begins();
        loop {
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let Some(plain) = self.rest().iter().position(special) else {
                self.position = self.text.len();
                return Err(self.malformed("a string without its closing quote"));
            };
            // Ends before an ASCII byte, hence on a character boundary.
            let part = self.text.get(self.position..self.position + plain).unwrap_or_default();
            self.sink.text(part);
            self.position += plain;
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return Err(self.malformed("a control character in a string")),
            }
        }
        self.position += 1;
        self.sink.string_ends();
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let character = match self.rest().get(1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.malformed("an unknown escape")),
        };
        self.position += 2;
        self.sink.character(character);
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<(), Malformed> {
        let Some(first) = unicode_unit(self.rest()) else {
            return Err(self.malformed("a \\u escape without four hexadecimal digits"));
        };
        self.position += UNICODE_ESCAPE_BYTES;
        let mut character = char::from_u32(first);
        if (0xd800..0xdc00).contains(&first)
            && let Some(second @ 0xdc00..0xe000) = unicode_unit(self.rest())
        {
            self.position += UNICODE_ESCAPE_BYTES;
            character = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
        }
        self.sink.character(character.unwrap_or(char::REPLACEMENT_CHARACTER));
        Ok(())
    }

    fn innermost(&mut self) -> Option<&mut Container> {
        self.depth.checked_sub(1).and_then(|index| self.containers.get_mut(index))
    }

    fn rest(&self) -> &[u8] {
        self.text.as_bytes().get(self.position..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.position += 1;
        }
    }

    fn malformed(&self, reason: &'static str) -> Malformed {
        Malformed { offset: self.position, reason }
    }
}

/// `\uXXXX`
const UNICODE_ESCAPE_BYTES: usize = 6;

/// The UTF-16 unit of the escape these bytes begin with.
fn unicode_unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.get(..UNICODE_ESCAPE_BYTES)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

const _: () = assert!(JSON_DEPTH_MAX == 128, "the wording of the depth error names the limit");

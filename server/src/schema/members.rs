//! Which objects of a document repeat a member name, and where the members of wide objects lie.
//!
//! Of a repeated name the last value counts, as with most readers of JSON; a document that has one is rewritten before
//! it is validated, so that validation sees each name once. The index keeps lookups in wide objects logarithmic. Its
//! buffers are reused.

use super::json::Node;
use std::collections::BTreeMap;

/// An object with more members than this is looked up through the index.
pub const NARROW_MEMBERS_MAX: usize = 16;

/// The index of one document at a time.
#[derive(Default)]
pub struct Members {
    /// Positions of the names of all wide objects, sorted by name within each.
    names: Vec<u32>,
    wide: Vec<WideObject>,
    containers: usize,
}

struct WideObject {
    /// Where the object stands among the nodes; ascending.
    position: u32,
    /// Where its names begin among `names`.
    start: u32,
    len: u32,
}

impl Members {
    /// Indexes a document; whether some object repeats a name.
    pub fn index(&mut self, nodes: &[Node<'_>]) -> bool {
        self.names.clear();
        self.wide.clear();
        self.containers = 0;
        let mut repeats = false;
        for (position, node) in nodes.iter().enumerate() {
            match *node {
                Node::Object { len, .. } if len > NARROW_MEMBERS_MAX => {
                    self.containers += 1;
                    repeats |= self.index_wide(nodes, position, len);
                }
                Node::Object { len, .. } => {
                    self.containers += 1;
                    repeats |= repeats_narrow(nodes, position, len);
                }
                Node::Array { .. } => self.containers += 1,
                Node::String(_) | Node::Static(_) => {}
            }
        }
        repeats
    }

    /// Objects and arrays in the document.
    pub fn containers(&self) -> usize {
        self.containers
    }

    /// Position of the value of a member of a wide object.
    pub fn find(&self, nodes: &[Node<'_>], object: usize, name: &str) -> Option<usize> {
        let found = self.wide.binary_search_by_key(&object, |wide| wide.position as usize).ok()?;
        let wide = self.wide.get(found)?;
        let names = self.names.get(wide.start as usize..(wide.start + wide.len) as usize)?;
        let at = names.binary_search_by(|position| name_at(nodes, *position as usize).cmp(name)).ok()?;
        names.get(at).map(|position| *position as usize + 1)
    }

    fn index_wide(&mut self, nodes: &[Node<'_>], object: usize, len: usize) -> bool {
        let start = self.names.len();
        self.names.extend(name_positions(nodes, object, len).map(|position| position as u32));
        let names = &mut self.names[start..];
        names.sort_unstable_by_key(|position| name_at(nodes, *position as usize));
        let same = |pair: &[u32]| name_at(nodes, pair[0] as usize) == name_at(nodes, pair[1] as usize);
        let repeats = names.windows(2).any(same);
        self.wide.push(WideObject { position: object as u32, start: start as u32, len: len as u32 });
        repeats
    }
}

/// The nodes of the same document with each name once in each object, the last value counting.
pub fn without_repeats<'a>(nodes: &[Node<'a>]) -> Vec<Node<'a>> {
    let mut kept = Vec::with_capacity(nodes.len());
    keep(nodes, 0, &mut kept);
    kept
}

/// Positions of an object's names.
pub fn name_positions(nodes: &[Node<'_>], object: usize, len: usize) -> impl Iterator<Item = usize> {
    let mut next = object + 1;
    (0..len).map(move |_| {
        let name = next;
        next = after(nodes, name + 1);
        name
    })
}

/// How deeply the nodes of a document are nested: 0 for a scalar.
pub fn depth(nodes: &[Node<'_>]) -> usize {
    let mut ends = Vec::new();
    let mut deepest = 0;
    for (position, node) in nodes.iter().enumerate() {
        while ends.last().is_some_and(|end| *end <= position) {
            ends.pop();
        }
        if matches!(node, Node::Object { .. } | Node::Array { .. }) {
            ends.push(after(nodes, position));
            deepest = deepest.max(ends.len());
        }
    }
    deepest
}

/// Position of what follows a value.
#[inline]
pub fn after(nodes: &[Node<'_>], position: usize) -> usize {
    match nodes.get(position) {
        Some(Node::Object { count, .. } | Node::Array { count, .. }) => position + 1 + count,
        _ => position + 1,
    }
}

/// The name at a position where one stands.
#[inline]
pub fn name_at<'a>(nodes: &[Node<'a>], position: usize) -> &'a str {
    match nodes.get(position) {
        Some(Node::String(name)) => name,
        _ => "",
    }
}

fn repeats_narrow(nodes: &[Node<'_>], object: usize, len: usize) -> bool {
    // One bit a name of the same length, first and last byte: a name whose bit is new needs no comparison.
    let mut seen = 0u64;
    for (count, position) in name_positions(nodes, object, len).enumerate() {
        let name = name_at(nodes, position);
        let bytes = name.as_bytes();
        let edges =
            usize::from(bytes.first().copied().unwrap_or(0)) * 5 + usize::from(bytes.last().copied().unwrap_or(0));
        let bit = 1u64 << ((bytes.len() * 11 + edges) % 64);
        if seen & bit != 0 && name_positions(nodes, object, count).any(|earlier| name_at(nodes, earlier) == name) {
            return true;
        }
        seen |= bit;
    }
    false
}

/// Appends the value at `position`. Recursion is bounded by the depth of documents.
fn keep<'a>(nodes: &[Node<'a>], position: usize, kept: &mut Vec<Node<'a>>) {
    let Some(node) = nodes.get(position) else { return };
    let start = kept.len();
    kept.push(*node);
    match *node {
        Node::Object { len, .. } => {
            let last: BTreeMap<&str, usize> =
                name_positions(nodes, position, len).map(|name| (name_at(nodes, name), name)).collect();
            for name in last.values() {
                kept.extend(nodes.get(*name));
                keep(nodes, name + 1, kept);
            }
            kept[start] = Node::Object { len: last.len(), count: kept.len() - start - 1 };
        }
        Node::Array { len, .. } => {
            let mut next = position + 1;
            for _ in 0..len {
                keep(nodes, next, kept);
                next = after(nodes, next);
            }
            kept[start] = Node::Array { len, count: kept.len() - start - 1 };
        }
        Node::String(_) | Node::Static(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json::exact;

    fn repeats(document: &str) -> bool {
        let parsed = exact::parse(document.as_bytes()).expect("it is JSON");
        Members::default().index(&parsed.nodes())
    }

    #[test]
    fn repeated_names_are_found_at_any_width_and_depth() {
        assert!(repeats(r#"{"a":1,"a":2}"#));
        assert!(repeats(r#"[{"x":{"b":[{"a":1,"c":{},"a":{}}]}}]"#));
        assert!(repeats(r#"{"a":1,"\u0061":2}"#));
        assert!(!repeats(r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#));
        assert!(!repeats(r#"{"abc":1,"aXc":2,"ac":3}"#));
        for width in [15, 16, 17, 200] {
            let members: Vec<String> = (0..width).map(|number| format!(r#""k{number}":[{number}]"#)).collect();
            assert!(!repeats(&format!("{{{}}}", members.join(","))));
            assert!(repeats(&format!(r#"{{{},"k7":0}}"#, members.join(","))));
        }
    }

    #[test]
    fn depth_counts_nested_containers_only() {
        for (document, expected) in [("1", 0), ("[]", 1), (r#"[1,{"a":[]},[2]]"#, 3), (r#"{"a":{},"b":{"c":1}}"#, 2)] {
            let parsed = exact::parse(document.as_bytes()).expect("it is JSON");
            assert_eq!(depth(&parsed.nodes()), expected, "{document}");
        }
    }

    #[test]
    fn the_last_value_of_a_repeated_name_counts() {
        let parsed = exact::parse(br#"[{"b":[1],"a":{"x":1,"x":2},"b":{"c":3}},7]"#).expect("it is JSON");
        let expected = exact::parse(br#"[{"a":{"x":2},"b":{"c":3}},7]"#).expect("it is JSON");
        assert_eq!(without_repeats(&parsed.nodes()), expected.nodes());
    }

    #[test]
    fn wide_objects_are_found_through_the_index() {
        let members: Vec<String> = (0..100).map(|number| format!(r#""k{number}":[{number},{{}}]"#)).collect();
        let document = format!(r#"[{{"a":1}},{{{0}}},{{{0}}}]"#, members.join(","));
        let parsed = exact::parse(document.as_bytes()).expect("it is JSON");
        let nodes = parsed.nodes();
        let mut index = Members::default();
        assert!(!index.index(&nodes));
        let second = after(&nodes, after(&nodes, 1));
        let value = index.find(&nodes, second, "k42").expect("it is there");
        assert!(value > second && value < nodes.len());
        assert_eq!(nodes[value + 1], exact::parse(b"42").expect("it is JSON").nodes()[0]);
        assert_eq!(index.find(&nodes, second, "k100"), None);
        assert_eq!(index.find(&nodes, 1, "a"), None, "narrow objects are not in it");
    }
}

//! How much work a template can make for one value, read from its text before it is compiled.
//!
//! Some keywords apply further schemas to the *same* value: references, `allOf` and its kin. Followed through, they
//! make a graph; its longest path decides how much stack a validation may need, its expansion how often one value may
//! be looked at. A loop in it would consume nothing, which JSON Schema forbids, and is refused.

use serde_json::{Map, Value};
use std::collections::HashMap;

/// The figures of a template, each the most over all its schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Schemas on the longest path that stays at one value.
    pub chain: usize,
    /// Schemas applied to one value, each as often as it is reached.
    pub work: u64,
    /// How many of these look into the value, so how often each of its children may be looked at.
    pub spread: u64,
}

/// Its references loop without consuming anything, or go on for more than [`CHAIN_MAX`] schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endless;

/// The longest path that is followed.
pub const CHAIN_MAX: usize = 4096;

/// The figures of a template.
pub fn of(template: &Value) -> Result<Shape, Endless> {
    let mut survey = Survey::new(template);
    survey.everywhere(template);
    if survey.is_endless {
        return Err(Endless);
    }
    let mut most = survey.most;
    if survey.has_foreign {
        // Some reference leads where this survey cannot follow: to a metaschema, or by a nested identifier.
        most.chain = most.chain.max(survey.edges + FOREIGN_CHAIN);
        most.spread = most.spread.max(FOREIGN_SPREAD);
    }
    Ok(most)
}

/// Longest path and number of applicators in a draft's metaschema, generously.
const FOREIGN_CHAIN: usize = 32;
const FOREIGN_SPREAD: u64 = 8;

const LISTS_IN_PLACE: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const SCHEMAS_IN_PLACE: [&str; 4] = ["not", "if", "then", "else"];
const MAPS_IN_PLACE: [&str; 2] = ["dependencies", "dependentSchemas"];
const REFERENCES: [&str; 3] = ["$ref", "$recursiveRef", "$dynamicRef"];
const LOOKING_INSIDE: [&str; 13] = [
    "properties",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "prefixItems",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "uniqueItems",
    "enum",
    "const",
];

struct Survey<'a> {
    root: &'a Value,
    /// Schemas by anchor or identifier.
    named: HashMap<&'a str, &'a Value>,
    /// By address; none while its own references are being followed.
    known: HashMap<usize, Option<Shape>>,
    most: Shape,
    edges: usize,
    has_foreign: bool,
    is_endless: bool,
    /// Schemas on the path being followed.
    following: usize,
}

impl<'a> Survey<'a> {
    fn new(root: &'a Value) -> Self {
        let mut named = HashMap::new();
        let mut has_foreign = false;
        collect_names(root, true, &mut named, &mut has_foreign);
        let most = Shape { chain: 1, work: 1, spread: 0 };
        Self { root, named, known: HashMap::new(), most, edges: 0, has_foreign, is_endless: false, following: 0 }
    }

    /// Visits every object as if it were a schema: some are not, which can only make the figures larger.
    fn everywhere(&mut self, value: &'a Value) {
        match value {
            Value::Object(members) => {
                let shape = self.visit(value);
                self.most.chain = self.most.chain.max(shape.chain);
                self.most.work = self.most.work.max(shape.work);
                self.most.spread = self.most.spread.max(shape.spread);
                members.values().for_each(|member| self.everywhere(member));
            }
            Value::Array(items) => items.iter().for_each(|item| self.everywhere(item)),
            _ => {}
        }
    }

    fn visit(&mut self, schema: &'a Value) -> Shape {
        let own = Shape { chain: 1, work: 1, spread: 0 };
        let Value::Object(members) = schema else { return own };
        let address = std::ptr::from_ref(schema).addr();
        match self.known.get(&address) {
            Some(Some(shape)) => return *shape,
            Some(None) => self.is_endless = true,
            None => {}
        }
        self.is_endless |= self.following >= CHAIN_MAX;
        if self.is_endless {
            return own;
        }
        self.known.insert(address, None);
        self.following += 1;
        let looks_inside = LOOKING_INSIDE.iter().any(|keyword| members.contains_key(*keyword));
        let mut shape = Shape { spread: u64::from(looks_inside), ..own };
        for applied in self.applied_in_place(members) {
            let below = self.visit(applied);
            shape.chain = shape.chain.max(below.chain + 1);
            shape.work = shape.work.saturating_add(below.work);
            shape.spread = shape.spread.saturating_add(below.spread);
        }
        self.following -= 1;
        self.known.insert(address, Some(shape));
        shape
    }

    fn applied_in_place(&mut self, members: &'a Map<String, Value>) -> Vec<&'a Value> {
        let mut applied: Vec<&'a Value> = Vec::new();
        let lists = LISTS_IN_PLACE.iter().filter_map(|keyword| members.get(*keyword)?.as_array());
        applied.extend(lists.flatten());
        applied.extend(SCHEMAS_IN_PLACE.iter().filter_map(|keyword| members.get(*keyword)));
        let maps = MAPS_IN_PLACE.iter().filter_map(|keyword| members.get(*keyword)?.as_object());
        applied.extend(maps.flat_map(|map| map.values()));
        for keyword in REFERENCES {
            if let Some(Value::String(reference)) = members.get(keyword) {
                match self.resolve(reference) {
                    Some(target) => applied.push(target),
                    None => self.has_foreign = true,
                }
            }
        }
        self.edges += applied.len();
        applied
    }

    fn resolve(&self, reference: &str) -> Option<&'a Value> {
        match reference.strip_prefix('#') {
            Some("") => Some(self.root),
            Some(pointer) if pointer.starts_with('/') => {
                let decoded = percent_encoding::percent_decode_str(pointer).decode_utf8().ok()?;
                self.root.pointer(&decoded)
            }
            Some(anchor) => self.named.get(anchor).copied(),
            None => self.named.get(reference).copied(),
        }
    }
}

fn collect_names<'a>(value: &'a Value, is_root: bool, named: &mut HashMap<&'a str, &'a Value>, has_nested: &mut bool) {
    match value {
        Value::Object(members) => {
            for keyword in ["$anchor", "$dynamicAnchor", "$id", "id"] {
                if let Some(Value::String(name)) = members.get(keyword) {
                    let anchor = name.strip_prefix('#').unwrap_or(name);
                    named.entry(anchor).or_insert(value);
                    // Below an identifier of its own, '#/…' starts from there, which is not followed here.
                    *has_nested |= !is_root && keyword == "$id" && !name.starts_with('#');
                }
            }
            members.values().for_each(|member| collect_names(member, false, named, has_nested));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_names(item, false, named, has_nested)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_flat_template_is_one_schema_deep() {
        let shape = of(&json!({"type": "object", "properties": {"a": {"type": "string"}}})).expect("no loop");
        assert_eq!(shape, Shape { chain: 1, work: 1, spread: 1 });
    }

    #[test]
    fn references_and_combinations_are_followed_through() {
        let template = json!({
            "definitions": {
                "a": {"allOf": [{"$ref": "#/definitions/b"}, {"$ref": "#/definitions/b"}]},
                "b": {"anyOf": [{"$ref": "#c"}, {"properties": {}}]},
                "c": {"$id": "#c", "items": {"$ref": "#"}}
            },
            "$ref": "#/definitions/a"
        });
        let shape = of(&template).expect("no loop");
        assert_eq!(shape, Shape { chain: 7, work: 13, spread: 4 });
    }

    #[test]
    fn doubling_saturates_instead_of_running_on() {
        let mut definitions = serde_json::Map::new();
        for level in 0..80 {
            let next = json!({"$ref": format!("#/definitions/c{}", level + 1)});
            definitions.insert(format!("c{level}"), json!({"allOf": [next.clone(), next]}));
        }
        definitions.insert("c80".to_owned(), json!(true));
        let shape = of(&json!({"definitions": definitions})).expect("no loop");
        assert_eq!(shape.work, u64::MAX);
    }

    #[test]
    fn loops_that_consume_nothing_are_found_and_recursion_into_children_is_not_one() {
        for template in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"not": {"$ref": "#"}}]}),
            json!({"$defs": {"a": {"$ref": "#b"}, "b": {"$anchor": "b", "$ref": "#/$defs/a"}}}),
        ] {
            assert_eq!(of(&template), Err(Endless), "{template}");
        }
        for template in [
            json!({"properties": {"next": {"$ref": "#"}, "not": {"$ref": "#"}, "$ref": {"$ref": "#"}}}),
            json!({"items": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}),
        ] {
            assert!(of(&template).is_ok(), "{template}");
        }
    }
}

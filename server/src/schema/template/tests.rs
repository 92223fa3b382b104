use super::*;
#[test]
fn probe() {
    for t in [r#"{"pattern":"(?=a)b"}"#, r#"{"pattern":"(a)\\1"}"#, r#"{"pattern":"("}"#, r#"{"pattern":"\\pL{2000}"}"#, r#"{"type":"strin"}"#,
        r#"{"$ref":"http://example.com/x"}"#, r##"{"$ref":"#/definitions/x"}"##, r#"{"$ref":"file:///etc/passwd"}"#, r#"{"$ref":"other.json"}"#,
        r#"{"$schema":"http://example.com/s"}"#, r#"{"$schema":5}"#, "5", "true", r#"{"$schema":"http://json-schema.org/draft-07/schema#"}"#,
        r#"{"$ref":"http://json-schema.org/draft-07/schema#"}"#, r#"{"patternProperties":{"(?!a)":{}}}"#, r#"{"format":"zork"}"#, r##"{"$ref":"#"}"##,
        r#"{"minLength":-1}"#, r#"{"properties":{"a/b":{"type":5}}}"#, r#"{"allOf":[]}"#, r#"{"multipleOf":0}"#,
        ] {
        eprintln!("{t} -> {:?}", Template::compile(t.as_bytes()));
    }
}

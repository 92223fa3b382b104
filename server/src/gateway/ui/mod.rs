//! The web UI: one page that holds everything it needs, and the policy that keeps it so.
//!
//! The page loads nothing from elsewhere and talks only to the server it came from. Its policy names the hashes of its
//! own script and style, so nothing else that might find its way into it would run.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// The page, put together from its parts when the server is compiled.
pub const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
    "<title>DeltaDatabase</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>",
    include_str!("style.css"),
    "</style>\n</head>\n",
    include_str!("page.html"),
    "<script>",
    include_str!("app.js"),
    "</script>\n</body>\n</html>\n",
);

/// The value of `Content-Security-Policy` for the page.
pub fn content_security_policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        let hash = |tag| STANDARD.encode(Sha256::digest(element(PAGE, tag)));
        format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash("script"),
            hash("style")
        )
    })
}

/// What stands between `<tag>` and `</tag>`, the first time.
fn element<'a>(page: &'a str, tag: &str) -> &'a str {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let inner = page.split_once(&open).map_or("", |(_, after)| after);
    inner.split_once(&close).map_or("", |(inner, _)| inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_refers_to_nothing_outside_itself() {
        for reference in ["http://", "https://", "src=", "@import", "url(", "//cdn", "integrity="] {
            assert!(!PAGE.contains(reference), "the page must not hold {reference:?}");
        }
        for reference in PAGE.split("href=\"").skip(1) {
            assert!(reference.starts_with(['#']) || reference.starts_with("data:,"), "{}", &reference[..20]);
        }
    }

    #[test]
    fn the_policy_covers_all_of_its_code() {
        // One script and one style element, no inline handlers and no style attributes: the policy forbids those.
        for tag in ["<script", "<style"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
        for attribute in [" onclick=", " onsubmit=", " oninput=", " onload=", " style=", "javascript:"] {
            assert!(!PAGE.contains(attribute), "{attribute}");
        }
        assert!(element(PAGE, "script").len() > 100 && element(PAGE, "style").len() > 100);
        assert!(content_security_policy().contains("script-src 'sha256-"));
    }

    #[test]
    fn the_page_keeps_the_key_for_the_session_only_and_never_writes_markup() {
        assert!(PAGE.contains("sessionStorage"));
        for forbidden in ["localStorage", "document.cookie", "innerHTML", "outerHTML", "eval(", "document.write"] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
    }
}

//! The status page: files that are part of the program.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const ICON: &str = include_str!("page/page.svg");

pub(super) fn routes() -> Router {
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(CONTENT_TYPE, kind)], text).into_response() })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", HTML))
        .route("/page.css", file("text/css; charset=utf-8", STYLE))
        .route("/page.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/page.svg", file("image/svg+xml", ICON))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the port's Content-Security-Policy would refuse, and what could make markup of a name.
    #[test]
    fn the_page_keeps_to_what_the_policy_allows() {
        for banned in [" style=", "<style", "onclick", "onload", "javascript:", "http://", "https://"] {
            let place = HTML.find(banned);
            assert_eq!(place, None, "{banned}");
        }
        assert_eq!(HTML.matches("<script").count(), 1);
        for banned in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "setAttribute(\"style\"",
        ] {
            assert!(!SCRIPT.contains(banned), "{banned}");
        }
        for method in ["POST", "PUT", "DELETE", "PATCH", "method:"] {
            assert!(!SCRIPT.contains(method), "{method}");
        }
    }

    #[test]
    fn the_script_finds_what_it_fills() {
        let ids: Vec<&str> = HTML.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        for call in ["byId(\"", "tiles(\"", "fill(\""] {
            for id in SCRIPT.split(call).skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(ids.contains(&id), "{id}");
            }
        }
    }
}

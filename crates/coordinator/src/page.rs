//! The web page: static files built into the binary. It reads the API like any other client.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

/// Path, content type, content.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("/chart.js", "text/javascript; charset=utf-8", include_str!("page/chart.js")),
];

/// Only what this coordinator itself serves, no inline script or style, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Whether the path is one of the page's files: they hold no data, so that a browser may load them before it has a
/// token to ask for data with.
pub(crate) fn holds(path: &str) -> bool {
    FILES.iter().any(|(known, ..)| *known == path)
}

/// Routes of all files.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        router.route(path, get(move || async move { (headers, content).into_response() }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_keeps_to_its_own_policy() {
        for (path, _, content) in FILES {
            for forbidden in
                ["innerHTML", "insertAdjacentHTML", "eval(", "<style", " style=\"", " onclick=", "https://"]
            {
                assert!(!content.contains(forbidden), "{path} has {forbidden}");
            }
        }
        let [(_, _, index), ..] = FILES;
        let quoted: Vec<&str> = index.split('"').skip(1).step_by(2).collect();
        for path in ["/style.css", "/app.js"] {
            assert!(quoted.contains(&path) && holds(path), "{path}");
        }
        assert_eq!(index.matches("<script").count(), index.matches("<script type=\"module\" src=").count());
        assert!(holds("/chart.js") && !holds("/metrics") && !holds("/api/v1/sweeps"));
    }
}

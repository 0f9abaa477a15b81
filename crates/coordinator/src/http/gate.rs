//! Who may come in: no foreign web page (Host, Origin), and nobody without the token where one is needed. A reader on
//! loopback needs none, so that a browser can show the page; whoever changes something does.

use std::net::SocketAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use isoloss_sweep::Digest;
use isoloss_wire::api::Code;

use crate::http::refusal::Refused;
use crate::page;

/// The rules of one coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    /// Digest of the token: comparing digests takes the same time for every wrong token.
    token: Digest,
    loopback: bool,
    hosts: Vec<String>,
}

impl Gate {
    pub(crate) fn new(token: &str, address: SocketAddr, further_hosts: &[String]) -> Self {
        let mut hosts: Vec<String> = further_hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        hosts.push(match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        });
        Self { token: Digest::of(token.as_bytes()), loopback: address.ip().is_loopback(), hosts }
    }

    fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refused> {
        let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default().to_ascii_lowercase();
        if self.loopback && !self.hosts.iter().any(|known| known == name_of(&host)) {
            let detail = format!("Host {host:?} is not this coordinator");
            return Err(Refused::new(Code::ForeignOrigin, detail));
        }
        if let Some(origin) = headers.get(header::ORIGIN)
            && origin.to_str().ok() != Some(format!("http://{host}").as_str())
        {
            return Err(Refused::new(Code::ForeignOrigin, "requests of other web pages are not answered"));
        }
        let reads = method == Method::GET || method == Method::HEAD;
        let open = matches!(path, "/livez" | "/readyz") || (reads && (self.loopback || page::holds(path)));
        let bearer = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        match bearer {
            Some(token) if Digest::of(token.as_bytes()) == self.token => Ok(()),
            None if open => Ok(()),
            Some(_) => Err(Refused::new(Code::Unauthorized, "the token is not the one of this coordinator")),
            None => Err(Refused::new(Code::Unauthorized, "a token is needed: the file `token` in the data directory")),
        }
    }
}

/// The host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

/// The gate as a layer around every route.
pub(crate) async fn guard(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    match gate.check(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, method: Method, headers: &[(&str, &str)]) -> Result<(), Code> {
        let gate = Gate::new("secret", address.parse().unwrap(), &["lab.example".to_owned()]);
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (axum::http::HeaderName::try_from(*name).unwrap(), axum::http::HeaderValue::try_from(*value).unwrap())
            })
            .collect();
        gate.check(&method, "/api/v1/sweeps", &headers).map_err(|refused| refused.0.code)
    }

    #[test]
    fn foreign_pages_and_strangers_stay_out() {
        let here = "127.0.0.1:8470";
        let own = ("host", "localhost:8470");
        let token = ("authorization", "Bearer secret");
        let foreign = Err(Code::ForeignOrigin);
        assert_eq!(check(here, Method::GET, &[own]), Ok(()));
        assert_eq!(check(here, Method::GET, &[("host", "[::1]:8470")]), Ok(()));
        assert_eq!(check(here, Method::GET, &[("host", "lab.example")]), Ok(()));
        assert_eq!(check(here, Method::GET, &[("host", "evil.example:8470")]), foreign);
        assert_eq!(check(here, Method::GET, &[]), foreign);
        assert_eq!(check(here, Method::POST, &[own]), Err(Code::Unauthorized));
        assert_eq!(check(here, Method::POST, &[own, token]), Ok(()));
        assert_eq!(check(here, Method::POST, &[own, ("authorization", "Bearer guess")]), Err(Code::Unauthorized));
        assert_eq!(check(here, Method::POST, &[own, token, ("origin", "http://evil.example")]), foreign);
        assert_eq!(check(here, Method::POST, &[own, token, ("origin", "http://localhost:8470")]), Ok(()));
        let outside = "192.0.2.7:8470";
        assert_eq!(check(outside, Method::GET, &[("host", "any.example")]), Err(Code::Unauthorized));
        assert_eq!(check(outside, Method::GET, &[("host", "any.example"), token]), Ok(()));
        let gate = Gate::new("secret", outside.parse().unwrap(), &[]);
        let open = |path| gate.check(&Method::GET, path, &HeaderMap::new()).is_ok();
        assert!(open("/") && open("/app.js") && open("/livez"), "the page itself holds no data");
        assert!(!open("/metrics") && !open("/api/v1/sweeps"));
    }
}

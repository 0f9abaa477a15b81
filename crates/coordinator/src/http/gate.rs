//! Who may come in: no foreign web page (Host, Origin), and nobody without a token whose role goes so far. A reader on
//! loopback needs none, so that a browser can show the page; whoever changes something, or reads a corpus, does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use isoloss_wire::api::Code;

use crate::http::limits::{Limits, WRITES, WRONG_TOKENS};
use crate::http::refusal::Refused;
use crate::page;
use crate::serving::Peer;
use crate::tokens::{Bearer, Role, Tokens};

/// The rules of one coordinator.
#[derive(Debug)]
pub(crate) struct Gate {
    tokens: Tokens,
    loopback: bool,
    /// How its own pages are called.
    scheme: &'static str,
    hosts: Vec<String>,
    wrong_tokens: Limits,
    writes: Limits,
}

/// Whose request this is; goes with it to the handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Missing for a reader on loopback.
    bearer: Option<Bearer>,
    on_this_machine: bool,
}

impl Caller {
    /// Whether this is the user whose coordinator it is, on this machine: he may read his own files anyway.
    pub(crate) fn is_owner_here(&self) -> bool {
        self.on_this_machine && self.bearer.as_ref().is_some_and(|bearer| bearer.is_owner)
    }

    /// Names the token in the log.
    pub(crate) fn name(&self) -> &str {
        self.bearer.as_ref().map_or("nobody", |bearer| &bearer.id)
    }
}

impl Gate {
    pub(crate) fn new(tokens: Tokens, address: SocketAddr, tls: bool, further_hosts: &[String]) -> Self {
        let mut hosts: Vec<String> = further_hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        hosts.push(match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        });
        Self {
            tokens,
            loopback: address.ip().is_loopback(),
            scheme: if tls { "https" } else { "http" },
            hosts,
            wrong_tokens: Limits::new(WRONG_TOKENS),
            writes: Limits::new(WRITES),
        }
    }

    fn check(&self, method: &Method, path: &str, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, Refused> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default().to_ascii_lowercase();
        if headers.get_all(header::HOST).iter().count() > 1 {
            return Err(Refused::new(Code::BadRequest, "more than one Host"));
        }
        if self.loopback && !self.hosts.iter().any(|known| known == name_of(&host)) {
            let detail = format!("Host {host:?} is not this coordinator");
            return Err(Refused::new(Code::ForeignOrigin, detail));
        }
        if let Some(origin) = headers.get(header::ORIGIN)
            && origin.to_str().ok() != Some(format!("{}://{host}", self.scheme).as_str())
        {
            return Err(Refused::new(Code::ForeignOrigin, "requests of other web pages are not answered"));
        }
        let reads = method == Method::GET || method == Method::HEAD;
        let open = matches!(path, "/livez" | "/readyz") || (reads && (self.loopback || page::holds(path)));
        let on_this_machine = peer.to_canonical().is_loopback();
        let Some(value) = text(header::AUTHORIZATION) else {
            let needed =
                "a token is needed: the file `token` in the data directory, or one from `isoloss token create`";
            return if open {
                Ok(Caller { bearer: None, on_this_machine })
            } else {
                Err(Refused::new(Code::Unauthorized, needed))
            };
        };
        match value.strip_prefix("Bearer ").and_then(|token| self.tokens.bearer(token)) {
            Some(bearer) => Ok(Caller { bearer: Some(bearer), on_this_machine }),
            None => Err(match self.wrong_tokens.take(&peer.to_string(), Instant::now()) {
                Ok(()) => Refused::new(Code::Unauthorized, "the token is not one of this coordinator"),
                Err(seconds) => Refused::too_many("too many wrong tokens from this address", seconds),
            }),
        }
    }

    /// Whether the caller's role goes as far as a route needs.
    fn allow(&self, caller: &Caller, needed: Role, now: Instant) -> Result<(), Refused> {
        // A reader without a token came in because he may read.
        let role = caller.bearer.as_ref().map_or(Role::Viewer, |bearer| bearer.role);
        if !role.allows(needed) {
            let code = if caller.bearer.is_some() { Code::Forbidden } else { Code::Unauthorized };
            let detail = format!("this needs a token of the role {}, got {}", needed.name(), role.name());
            return Err(Refused::new(code, detail));
        }
        if needed == Role::Submitter
            && let Err(seconds) = self.writes.take(caller.name(), now)
        {
            return Err(Refused::too_many("too many plans, submissions and orders with this token", seconds));
        }
        Ok(())
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
pub(crate) async fn guard(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    // Every connection says who is there; without it nobody is trusted.
    let peer = request.extensions().get::<Peer>();
    let address = peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.address);
    match gate.check(request.method(), request.uri().path(), request.headers(), address) {
        Ok(caller) => {
            if let Some(peer) = peer.filter(|_| caller.bearer.is_some()) {
                peer.is_known();
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

/// What a route needs, as a layer around it.
pub(crate) async fn needs(State((gate, role)): State<(Arc<Gate>, Role)>, request: Request, next: Next) -> Response {
    let allowed = match request.extensions().get::<Caller>() {
        Some(caller) => gate.allow(caller, role, Instant::now()),
        None => Err(Refused::new(Code::Unauthorized, "nobody let this request in")),
    };
    match allowed {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct House {
        dir: tempfile::TempDir,
        gate: Gate,
    }

    impl House {
        fn new(address: &str, tls: bool) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let tokens = Tokens::new(dir.path(), "secret");
            let gate = Gate::new(tokens, address.parse().unwrap(), tls, &["lab.example".to_owned()]);
            Self { dir, gate }
        }

        fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Caller, Code> {
            let headers = headers
                .iter()
                .map(|(name, value)| {
                    (axum::http::HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
                })
                .collect();
            let peer = "192.0.2.9".parse().unwrap();
            self.gate.check(&method, path, &headers, peer).map_err(|refused| refused.code())
        }

        fn check(&self, method: Method, headers: &[(&str, &str)]) -> Result<(), Code> {
            self.ask(method, "/api/v1/sweeps", headers).map(drop)
        }
    }

    const OWN: (&str, &str) = ("host", "localhost:8470");
    const TOKEN: (&str, &str) = ("authorization", "Bearer secret");

    #[test]
    fn foreign_pages_and_strangers_stay_out() {
        let here = House::new("127.0.0.1:8470", false);
        let foreign = Err(Code::ForeignOrigin);
        assert_eq!(here.check(Method::GET, &[OWN]), Ok(()));
        assert_eq!(here.check(Method::GET, &[("host", "[::1]:8470")]), Ok(()));
        assert_eq!(here.check(Method::GET, &[("host", "lab.example")]), Ok(()));
        assert_eq!(here.check(Method::GET, &[("host", "evil.example:8470")]), foreign);
        assert_eq!(here.check(Method::GET, &[]), foreign);
        assert_eq!(here.check(Method::POST, &[OWN]), Err(Code::Unauthorized));
        assert_eq!(here.check(Method::POST, &[OWN, TOKEN]), Ok(()));
        assert_eq!(here.check(Method::POST, &[OWN, ("authorization", "Bearer guess")]), Err(Code::Unauthorized));
        assert_eq!(here.check(Method::POST, &[OWN, ("authorization", "Basic secret")]), Err(Code::Unauthorized));
        assert_eq!(here.check(Method::POST, &[OWN, TOKEN, ("origin", "http://evil.example")]), foreign);
        assert_eq!(here.check(Method::POST, &[OWN, TOKEN, ("origin", "null")]), foreign);
        assert_eq!(here.check(Method::POST, &[OWN, TOKEN, ("origin", "http://localhost:8470")]), Ok(()));
        let outside = House::new("192.0.2.7:8470", true);
        let any = ("host", "any.example");
        assert_eq!(outside.check(Method::GET, &[any]), Err(Code::Unauthorized));
        assert_eq!(outside.check(Method::GET, &[any, TOKEN]), Ok(()));
        assert_eq!(outside.check(Method::GET, &[any, TOKEN, ("origin", "http://any.example")]), foreign);
        assert_eq!(outside.check(Method::GET, &[any, TOKEN, ("origin", "https://any.example")]), Ok(()));
        let open = |path| outside.ask(Method::GET, path, &[]).is_ok();
        assert!(open("/") && open("/app.js") && open("/livez"), "the page itself holds no data");
        assert!(!open("/metrics") && !open("/api/v1/sweeps"));
    }

    #[test]
    fn a_role_goes_as_far_as_it_goes() {
        let house = House::new("127.0.0.1:8470", false);
        let allow = |headers: &[(&str, &str)], needed| {
            let caller = house.ask(Method::GET, "/api/v1/sweeps", headers).unwrap();
            house.gate.allow(&caller, needed, Instant::now()).map_err(|refused| refused.code())
        };
        let (_, token) = crate::tokens::create(house.dir.path(), Role::Viewer, "reader").unwrap();
        let bearer = format!("Bearer {token}");
        let viewer = [OWN, ("authorization", bearer.as_str())];
        assert_eq!(allow(&viewer, Role::Viewer), Ok(()));
        assert_eq!(allow(&viewer, Role::Submitter), Err(Code::Forbidden));
        assert_eq!(allow(&[OWN], Role::Viewer), Ok(()));
        assert_eq!(allow(&[OWN], Role::Worker), Err(Code::Unauthorized), "a corpus is not for every local user");
        assert_eq!(allow(&[OWN, TOKEN], Role::Worker), Ok(()));
        let caller = house.ask(Method::POST, "/api/v1/sweeps", &[OWN, TOKEN]).unwrap();
        assert!(!caller.is_owner_here(), "the owner's token, from another machine");
        let writes = (0..1000).map(|_| house.gate.allow(&caller, Role::Submitter, Instant::now()));
        assert_eq!(writes.filter_map(Result::err).next().unwrap().code(), Code::TooMany);
    }

    #[test]
    fn wrong_tokens_are_limited_and_right_ones_are_not() {
        let house = House::new("127.0.0.1:8470", false);
        let wrong = || house.check(Method::POST, &[OWN, ("authorization", "Bearer guess")]);
        let codes: Vec<Code> = (0..100).filter_map(|_| wrong().err()).collect();
        assert_eq!((codes[0], codes[99]), (Code::Unauthorized, Code::TooMany));
        assert_eq!(house.check(Method::POST, &[OWN, TOKEN]), Ok(()));
    }
}

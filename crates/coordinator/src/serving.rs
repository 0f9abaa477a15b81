//! Connections: how many, from whom, how long they may take to say what they want, and TLS. It speaks HTTP/1.1 and knows
//! no route.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

use crate::config::TlsFiles;

/// Open connections: thousands of workers hold one or two each. Those that come later wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// Of them those of one address: workers behind one gateway share theirs, and one guest must not take every place.
const CONNECTIONS_PER_PEER_MAX: usize = 3072;
/// From the first moment of silence to the end of a request's head; also how long an idle connection stays open. Clients
/// of this project let go of theirs earlier.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// A head of a request has 20 lines and 2 KiB at most where no proxy adds to it.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 64 << 10;
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Open connections get this long to end when the coordinator does.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// When the system gives no more connections (too many open files, mostly), it is asked again after this long.
const RELIEF: Duration = Duration::from_secs(1);

/// Who is at the other end; every request carries it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Certificate and key as a listener uses them.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, String> {
    let certificate = files.certificate.display();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| format!("cannot read the certificate {certificate}: {error}"))?;
    if chain.is_empty() {
        return Err(format!("there is no certificate in {certificate}; expected PEM"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.map_err(|error| format!("cannot read the private key {}: {error}", files.key.display()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("{certificate} and {} do not go together: {error}", files.key.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `closed`, then lets connections end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    mut closed: watch::Receiver<bool>,
) -> io::Result<()> {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let guests = Guests::default();
    loop {
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            _ = closed.wait_for(|closed| *closed) => break,
        };
        let Some(guest) = guests.enter(peer.ip()) else { continue };
        let (router, tls, watcher) = (router.clone(), tls.clone(), graceful.watcher());
        let mut closed = closed.clone();
        tokio::spawn(async move {
            let Some(tls) = tls else {
                return talk(stream, peer, router, watcher, (place, guest)).await;
            };
            let handshake = tokio::time::timeout(HANDSHAKE_PATIENCE, tls.accept(stream));
            let met = tokio::select! {
                met = handshake => met,
                _ = closed.wait_for(|closed| *closed) => return,
            };
            match met {
                Ok(Ok(stream)) => talk(stream, peer, router, watcher, (place, guest)).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no handshake"),
                Err(_) => tracing::debug!(%peer, "no handshake in time"),
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(LAST_WORDS, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    Ok(())
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Only latency is lost where this is refused.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::error!(%error, "cannot take connections; trying again");
                tokio::time::sleep(RELIEF).await;
            }
        }
    }
}

/// One connection to its end. `place` is given back with it.
async fn talk<S, P>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
    place: P,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%peer, %error, "a connection ended badly");
    }
    drop(place);
}

/// Open connections by address.
#[derive(Debug, Clone, Default)]
struct Guests(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One of them; gone when dropped.
#[derive(Debug)]
struct Guest(Guests, IpAddr);

impl Guests {
    fn enter(&self, peer: IpAddr) -> Option<Guest> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(peer).or_default();
        if *count >= CONNECTIONS_PER_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(Guest(self.clone(), peer))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_every_place() {
        let guests = Guests::default();
        let [here, there] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let mut inside: Vec<Guest> = (0..CONNECTIONS_PER_PEER_MAX).map(|_| guests.enter(here).unwrap()).collect();
        assert!(guests.enter(here).is_none() && guests.enter(there).is_some());
        inside.pop();
        assert!(guests.enter(here).is_some());
        drop(inside);
        assert!(guests.0.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_ends_the_connection() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        for beginning in ["", "GET / HTTP/1.1\r\nhost: a", "GET /x HTTP/1.1\r\nhost: a\r\n\r\n"] {
            let (mut client, server) = tokio::io::duplex(4096);
            let peer = SocketAddr::from(([192, 0, 2, 1], 1));
            let graceful = GracefulShutdown::new();
            let talking = tokio::spawn(talk(server, peer, Router::new(), graceful.watcher(), ()));
            client.write_all(beginning.as_bytes()).await.unwrap();
            let began = tokio::time::Instant::now();
            talking.await.unwrap();
            assert!(began.elapsed() >= HEAD_PATIENCE && began.elapsed() < 2 * HEAD_PATIENCE, "{beginning:?}");
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer.contains("404"), beginning.starts_with("GET /x"), "{answer}");
        }
    }
}

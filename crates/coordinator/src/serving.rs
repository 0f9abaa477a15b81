//! Connections: how many, from whom, how long they may take to say what they want, and TLS. It speaks HTTP/1.1 and knows
//! no route.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

mod guests;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use guests::{Guest, Guests};

/// Open connections: thousands of workers hold one or two each. Those that come later wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// From the first moment of silence to the end of a request's head; also how long an idle connection stays open. Clients
/// of this project let go of theirs earlier.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// From the first moment of a connection, or the end of its handshake, to the end of its first request's head. Whoever
/// connects has something to ask; a browser that connected ahead of time connects again.
const FIRST_HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// A head of a request has 20 lines and 2 KiB at most where no proxy adds to it.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 64 << 10;
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// Open connections get this long to end when the coordinator does.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// When the system gives no more connections (too many open files, mostly), it is asked again after this long.
const RELIEF: Duration = Duration::from_secs(1);

/// Who is at the other end; every request carries it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    guest: Arc<Guest>,
}

impl Peer {
    /// Its token is good: from now on it is no stranger.
    pub(crate) fn is_known(&self) {
        self.guest.is_known();
    }
}

/// Opens a port to serve on, inside of a tokio runtime. As many may wait in the kernel's queue as find a place, where the system lets them: workers of a cluster come
/// together.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(CONNECTIONS_MAX as u32)
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
        let Some(guest) = guests.enter(peer.ip()).map(Arc::new) else { continue };
        let (router, tls, watcher) = (router.clone(), tls.clone(), graceful.watcher());
        let mut closed = closed.clone();
        tokio::spawn(async move {
            let socket = stream.as_raw_fd();
            let Some(tls) = tls else {
                talk(stream, peer, router, watcher, guest, socket).await;
                return drop(place);
            };
            let handshake = tokio::time::timeout(HANDSHAKE_PATIENCE, tls.accept(stream));
            let met = tokio::select! {
                met = handshake => met,
                () = leaves(&guest, socket) => return,
                _ = closed.wait_for(|closed| *closed) => return,
            };
            match met {
                Ok(Ok(stream)) => talk(stream, peer, router, watcher, guest, socket).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no handshake"),
                Err(_) => tracing::debug!(%peer, "no handshake in time"),
            }
            drop(place);
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

/// Ends when the guest has to make room for another: not while it asks, nor because nobody has listened to it yet.
async fn leaves(guest: &Guest, socket: RawFd) {
    loop {
        guest.sent_away().await;
        // The socket lives as long as whoever waits here.
        let waiting = recv(socket, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
        if !guest.may_stay(waiting.is_ok_and(|bytes| bytes > 0)) {
            return;
        }
    }
}

/// One connection to its end, by its socket.
async fn talk<S>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
    guest: Arc<Guest>,
    socket: RawFd,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(router);
    let seat = guest.clone();
    let guest = Peer { address: peer.ip(), guest };
    let (asked, has_asked) = watch::channel(false);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        asked.send_replace(true);
        let guest = guest.clone();
        guest.guest.asks();
        request.extensions_mut().insert(guest.clone());
        let answer = routes.call(request);
        async move {
            let answer = answer.await;
            guest.guest.rests();
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let connection = pin!(watcher.watch(connection));
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a connection ended badly");
            }
        }
        () = silence(has_asked) => tracing::debug!(%peer, "no request in time"),
        () = leaves(&seat, socket) => tracing::debug!(%peer, "makes room for another"),
    }
}

/// Ends when no request came in time; never once there was one.
async fn silence(mut has_asked: watch::Receiver<bool>) {
    let first = tokio::time::timeout(FIRST_HEAD_PATIENCE, has_asked.wait_for(|asked| *asked)).await.is_ok();
    if first {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// As when all workers of a cluster start together: more than may be silent, and nobody is.
    #[tokio::test]
    async fn of_many_who_come_at_once_and_speak_nobody_is_sent_away() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let come = |_| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
            stream
        };
        // Nobody is let in before all have come.
        let crowd: Vec<std::net::TcpStream> = (0..320).map(come).collect();
        let (close, closed) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, None, Router::new(), closed));
        let answers = tokio::task::spawn_blocking(move || {
            let heard = crowd.into_iter().map(|mut stream| {
                let mut answer = String::new();
                stream.read_to_string(&mut answer).map(|_| answer)
            });
            heard.filter(|answer| answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 404"))).count()
        });
        assert_eq!(answers.await.unwrap(), 320);
        close.send_replace(true);
        serving.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_ends_the_connection() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        for (beginning, patience) in [
            ("", FIRST_HEAD_PATIENCE),
            ("G", FIRST_HEAD_PATIENCE),
            ("GET / HTTP/1.1\r\nhost: a", FIRST_HEAD_PATIENCE),
            ("GET /x HTTP/1.1\r\nhost: a\r\n\r\n", HEAD_PATIENCE),
        ] {
            let (mut client, server) = tokio::io::duplex(4096);
            let peer = SocketAddr::from(([192, 0, 2, 1], 1));
            let graceful = GracefulShutdown::new();
            let guest = Arc::new(Guests::default().enter(peer.ip()).unwrap());
            let talking = tokio::spawn(talk(server, peer, Router::new(), graceful.watcher(), guest, -1));
            client.write_all(beginning.as_bytes()).await.unwrap();
            let began = tokio::time::Instant::now();
            talking.await.unwrap();
            assert!(began.elapsed() >= patience && began.elapsed() < 2 * patience, "{beginning:?}");
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer.contains("404"), beginning.starts_with("GET /x"), "{answer}");
        }
    }
}

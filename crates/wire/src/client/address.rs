//! A coordinator's address as people write it: scheme, host and port, nothing behind. It asks nobody.

use reqwest::Url;

use super::ClientError;

/// What `server` names, without a path. What is refused comes with the words to write instead.
pub(super) fn parse(server: &str) -> Result<Url, ClientError> {
    let wrong = |reason: String| Err(ClientError::Address { server: server.to_owned(), reason });
    let server = server.trim();
    if server.is_empty() {
        return wrong("it is empty; write one such as http://127.0.0.1:8470".to_owned());
    }
    if !server.contains("://") {
        return wrong(format!("it has no scheme; write http://{server}, or https://{server} where TLS is spoken"));
    }
    let url = match Url::parse(server) {
        Ok(url) => url,
        Err(error) => return wrong(format!("{error}; write one such as http://127.0.0.1:8470")),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return wrong(format!("it begins with {}://; write http://, or https:// where TLS is spoken", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("it holds a user's name; take that out: who you are is said by a token alone".to_owned());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return wrong(format!("something stands behind host and port; write {}", url.origin().ascii_serialization()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_scheme_host_and_port_and_what_is_not_is_told_how_to_be() {
        for sound in ["http://127.0.0.1:8470", "https://lab.example", "http://[::1]:1/", " HTTP://localhost:80 "] {
            assert_eq!(parse(sound).unwrap().path(), "/", "{sound}");
        }
        let wrong = [
            ("", "it is empty"),
            ("127.0.0.1:8470", "write http://127.0.0.1:8470,"),
            ("localhost:8470", "write http://localhost:8470,"),
            ("lab.example", "or https://lab.example where"),
            ("ftp://lab.example", "begins with ftp://"),
            ("http://", "empty host"),
            ("http://lab:99999", "invalid port"),
            ("http://me:secret@lab.example", "said by a token"),
            ("http://127.0.0.1:8470/api/v1/sweeps", "write http://127.0.0.1:8470"),
            ("https://lab.example/#sweep", "write https://lab.example"),
            ("https://lab.example?x=1", "write https://lab.example"),
        ];
        for (server, hint) in wrong {
            let error = parse(server).unwrap_err().to_string();
            assert!(error.contains(hint) && error.contains(&format!("{server:?}")), "{server}: {error}");
        }
    }
}

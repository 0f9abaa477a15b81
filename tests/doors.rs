//! What a person is told who stands before the wrong door, or has no key to it: addresses, certificates, backups, modes.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use isoloss_store::{Record, Store, sample};
use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::binary::{Daemon, expect, free_port, isoloss, until};

fn said(code: i32, command: &mut Command) -> String {
    String::from_utf8(expect(code, command).stderr).unwrap()
}

/// Certificate and key for `localhost`, in files.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    fs::write(&certificate, cert.pem()).unwrap();
    fs::write(&key, signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

fn serve(data: &Path, port: u16, tls: Option<&(PathBuf, PathBuf)>) -> Command {
    let mut command = isoloss(data);
    command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]);
    if let Some((certificate, key)) = tls {
        command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
    }
    command
}

#[test]
fn whoever_calls_at_a_wrong_address_is_told_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, house) = (folder.path().join("data"), folder.path().join("house"));
    let (plain, secret) = (free_port(), free_port());
    let pair = certificate(folder.path(), "own");
    let other = certificate(folder.path(), "other");
    let _plain = Daemon::start(&mut serve(&data, plain, None));
    let _secret = Daemon::start(&mut serve(&house, secret, Some(&pair)));
    // Whatever answers in no HTTP: here it only accepts.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let garbled = mute.local_addr().unwrap().port();
    std::thread::spawn(move || while mute.accept().is_ok() {});
    let status = |server: &str, ca: Option<&Path>| {
        // Each coordinator knows the token of its own data directory.
        let mut command = isoloss(if server.ends_with(&secret.to_string()) { &house } else { &data });
        command.args(["status", "--server", server]);
        command.args(ca.iter().flat_map(|ca| ["--ca-file".as_ref(), ca.as_os_str()]));
        command
    };
    let sound = [(format!("http://127.0.0.1:{plain}"), None), (format!("https://localhost:{secret}"), Some(&*pair.0))];
    for (server, ca) in sound {
        until("a coordinator", || status(&server, ca).output().unwrap().status.success().then_some(()));
    }
    let (known, stranger) = (Some(&*pair.0), Some(&*other.0));
    let wrong: [(i32, String, Option<&Path>, &str); 11] = [
        (2, format!("127.0.0.1:{plain}"), None, "write http://127.0.0.1:"),
        (2, format!("http://127.0.0.1:{plain}/api/v1"), None, "something stands behind host and port"),
        (2, format!("https://127.0.0.1:{plain}"), known, "write http:// in --server"),
        (2, format!("http://localhost:{secret}"), None, "write https:// in --server"),
        (2, format!("https://localhost:{secret}"), stranger, "--ca-file"),
        (2, format!("https://127.0.0.1:{secret}"), known, "by a name of its certificate"),
        (2, format!("https://localhost:{secret}"), Some(folder.path()), "cannot use the certificates"),
        (2, String::new(), None, "it is empty"),
        (5, format!("http://127.0.0.1:{}", free_port()), None, "`isoloss serve`"),
        (5, "http://no-such-host.invalid:8470".to_owned(), None, "no machine of this name"),
        (5, format!("http://127.0.0.1:{garbled}"), None, "in no way a coordinator does"),
    ];
    for (code, server, ca, hint) in wrong {
        let said = said(code, &mut status(&server, ca));
        assert!(said.contains(hint), "{server}: {said}");
        assert_eq!(said.contains("isoloss serve"), hint.contains("isoloss serve"), "{server}: {said}");
        assert!(!said.contains("ERROR"), "{server}: {said}");
    }
}

#[test]
fn a_coordinator_that_cannot_speak_tls_says_so_and_names_no_address() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (own, other) = (certificate(folder.path(), "own"), certificate(folder.path(), "other"));
    let missing = folder.path().join("missing.pem");
    for (pair, reason) in [
        ((missing.clone(), own.1.clone()), "missing.pem"),
        ((own.0.clone(), missing), "missing.pem"),
        ((own.0.clone(), other.1), "does not belong to"),
        ((own.1.clone(), own.1), "no certificate in"),
    ] {
        let said = said(2, &mut serve(&data, free_port(), Some(&pair)));
        assert!(said.contains(reason) && !said.contains("coordinator at"), "{said}");
    }
    assert!(!data.join("store").exists() && !data.join("token").exists(), "nothing was begun");
}

/// A backup of a small store, and its bytes.
fn backup(folder: &Path) -> (PathBuf, Vec<u8>) {
    let data = folder.join("origin");
    let mut store = Store::open(&data.join("store")).unwrap();
    for n in 0..5 {
        let admission = sample::admission(&format!("sweep {n}"), [sample::planned(n)]);
        store.append(&Record::Admitted { admission: admission.into() }).unwrap();
        store.commit().unwrap();
    }
    drop(store);
    let file = folder.join("backup");
    expect(0, isoloss(&data).args(["store", "backup"]).arg(&file));
    let bytes = fs::read(&file).unwrap();
    (file, bytes)
}

#[test]
fn a_file_that_is_no_backup_is_told_apart_and_nothing_is_made_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, whole) = backup(folder.path());
    let half = whole.len() / 2;
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let newer = [b"isoloss journal 7\n", &whole[18..40]].concat();
    let wrong = [
        (2, Vec::new(), "it is empty".to_owned()),
        (2, whole[..9].to_vec(), "cut off at byte 9".to_owned()),
        (2, b"PK\x03\x04 and so on, much longer".to_vec(), "byte 0 is another".to_owned()),
        (2, changed(5), "byte 5 is another".to_owned()),
        (1, newer, "written in format 7".to_owned()),
        (1, whole[..half].to_vec(), format!("of {half}: 2 record(s) before that are whole, and it is cut off")),
        (1, whole[..whole.len() - 1].to_vec(), "4 record(s) before that are whole".to_owned()),
        (1, changed(200), "damaged at byte 18 of ".to_owned()),
    ];
    let target = folder.path().join("target");
    for (code, bytes, reason) in wrong {
        fs::write(&file, &bytes).unwrap();
        for action in ["verify", "restore"] {
            let said = said(code, isoloss(&target).args(["store", action]).arg(&file));
            assert!(said.contains(&reason), "{action}: {said}, not {reason}");
        }
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{reason}");
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
    let said = said(2, isoloss(&target).args(["store", "restore"]).arg(folder.path()));
    assert!(said.contains("it is a folder"), "{said}");
    expect(4, isoloss(&target).args(["store", "verify"]).arg(folder.path().join("nothing")));
    // What is there stays as it is, whatever the file is.
    fs::write(&file, &whole).unwrap();
    expect(0, isoloss(&target).args(["store", "restore"]).arg(&file));
    let journal = fs::read(target.join("store/journal")).unwrap();
    for bytes in [whole[..half].to_vec(), whole] {
        fs::write(&file, bytes).unwrap();
        expect(1, isoloss(&target).args(["store", "restore"]).arg(&file));
        assert_eq!(fs::read(target.join("store/journal")).unwrap(), journal);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_a_coordinator_writes_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let port = free_port();
    let mut open = Command::new("sh");
    // A umask of nothing: only what isoloss asks for keeps others out.
    open.args(["-c", "umask 0 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_isoloss")]);
    open.args(["serve", "--listen", &format!("127.0.0.1:{port}")]).env("ISOLOSS_DATA_DIR", &data);
    let daemon = Daemon::start(&mut open);
    let server = format!("http://127.0.0.1:{port}");
    until("a coordinator", || {
        isoloss(&data).args(["status", "--server", &server]).output().unwrap().status.success().then_some(())
    });
    expect(0, isoloss(&data).args(["token", "create", "--role", "viewer"]));
    for name in ["", "store", "store/index", "corpora", "logs", "trainers"] {
        assert_eq!(mode(&data.join(name)), 0o700, "{name}");
    }
    for name in ["token", "tokens.json", "lease-keys.json", "store/journal", "store/lock"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    let log = daemon.stop();
    assert!(!log.contains("chmod"), "{log}");
    let file = folder.path().join("backup");
    expect(0, isoloss(&data).args(["store", "backup"]).arg(&file));
    assert_eq!(mode(&file), 0o600);

    for (path, open, shut, hint) in
        [(data.clone(), 0o755, 0o700, "chmod 700"), (data.join("token"), 0o644, 0o600, "chmod 600")]
    {
        fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
        let mut told = isoloss(&data);
        // A wrong address ends it right after.
        let said = said(2, told.args(["serve", "--listen", "nowhere"]));
        assert!(said.contains(hint) && said.contains(path.to_str().unwrap()), "{said}");
        fs::set_permissions(&path, fs::Permissions::from_mode(shut)).unwrap();
    }
}

#[test]
fn a_file_that_holds_no_token_and_a_filter_that_is_none_are_refused_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    for text in ["", " \n", "one\ntwo\n", "two words", "\u{e9}"] {
        fs::write(&file, text).unwrap();
        let said = said(2, isoloss(&folder.path().join("data")).arg("status").arg("--token-file").arg(&file));
        assert!(said.contains("expected one token") && said.contains(file.to_str().unwrap()), "{text:?}: {said}");
    }
    assert!(said(2, isoloss(folder.path()).args(["--log", "=x=y", "token", "list"])).contains("is no filter"));
    let said = said(2, isoloss(folder.path()).args(["worker", "--server", "nowhere"]));
    assert!(said.contains("write http://nowhere") && !said.contains("offers"), "{said}");
}

//! Daemons on an open address, as on several machines: TLS, a token for each role, and none of them where others can see it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::binary::{Daemon, children_of, expect, free_port, isoloss, until};

const SWEEP: &str = "schema = 1\nname = \"secret\"\n[corpus]\nsource = \"synthetic\"\npreset = \"tiny\"\nbytes = \"400kB\"\n\
                     validation = 0.2\n[model]\ncontext = 64\n[axes]\nparams = [\"6k\"]\ntokens = [\"200k\", \"2M\"]\n";

/// All of what this project says, and of its libraries what does not fill the pipe that nobody empties.
const LOG: &str = "info,isoloss_coordinator=debug,isoloss_worker=debug,isoloss_wire=debug";

/// Makes a token of a role into a file, as deploy/README.md says.
fn token(data: &Path, role: &str) -> (std::path::PathBuf, String) {
    let made = expect(0, isoloss(data).args(["token", "create", "--role", role, "--name", role]));
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert_eq!(token.len(), 64);
    let file = data.join(format!("{role}.token"));
    fs::write(&file, &token).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    (file, token)
}

/// What everybody on the machine, or a foreign trainer, could read of a process.
fn seen(pid: u32) -> Vec<u8> {
    let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    [read("cmdline"), read("environ")].concat()
}

#[test]
fn tokens_travel_in_tls_and_stand_in_no_argument_environment_or_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("coordinator");
    fs::create_dir_all(&data).unwrap();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&certificate, cert.pem()).unwrap();
    fs::write(&key, signing_key.serialize_pem()).unwrap();
    let listen = format!("0.0.0.0:{}", free_port());
    let server = listen.replace("0.0.0.0", "https://localhost");

    let open = expect(1, isoloss(&data).args(["serve", "--listen", &listen]));
    assert!(String::from_utf8_lossy(&open.stderr).contains("--tls-cert"), "an open address needs TLS");
    let mut command = isoloss(&data);
    command.args(["serve", "--listen", &listen, "--tls-cert"]).arg(&certificate).arg("--tls-key").arg(&key);
    let coordinator = Daemon::start(command.env("ISOLOSS_LOG", LOG));
    let (worker_file, worker_token) = token(&data, "worker");
    let (submitter_file, submitter_token) = token(&data, "submitter");
    let owner_token = until("the owner's token", || fs::read_to_string(data.join("token")).ok());

    let elsewhere = folder.path().join("elsewhere");
    let with = |file: &Path| -> Command {
        let mut command = isoloss(&elsewhere);
        command.args(["--server", &server, "--ca-file"]).arg(&certificate).arg("--token-file").arg(file);
        command
    };
    let sweep = folder.path().join("secret.toml");
    fs::write(&sweep, SWEEP).unwrap();
    until("the coordinator", || with(&submitter_file).arg("status").output().unwrap().status.success().then_some(()));
    expect(1, with(&worker_file).arg("submit").arg(&sweep));
    expect(0, with(&submitter_file).arg("submit").arg(&sweep));
    let mut command = with(&worker_file);
    let worker = Daemon::start(command.args(["worker", "--cores", "1"]).env("ISOLOSS_LOG", LOG));

    let child = until("a child that trains", || children_of(worker.id()).first().copied());
    let tokens = [&worker_token, &submitter_token, &owner_token];
    for pid in [coordinator.id(), worker.id(), child] {
        let seen = seen(pid);
        assert!(tokens.iter().all(|token| !seen.windows(token.len()).any(|part| part == token.as_bytes())), "{pid}");
    }
    let inherited =
        String::from_utf8_lossy(&fs::read(format!("/proc/{child}/environ")).unwrap_or_default()).into_owned();
    assert!(!inherited.contains("ISOLOSS_TOKEN_FILE="), "a child has no business with the coordinator");
    expect(0, with(&submitter_file).args(["watch", "secret"]));
    expect(0, isoloss(&data).args(["token", "revoke", "submitter"]));
    expect(1, with(&submitter_file).arg("status"));
    let listed = String::from_utf8(expect(0, isoloss(&data).args(["token", "list", "--json"])).stdout).unwrap();
    assert!(listed.contains("worker") && !listed.contains("submitter") && !listed.contains("digest"), "{listed}");

    let (of_worker, of_coordinator) = (worker.stop(), coordinator.stop());
    let stored = fs::read_to_string(data.join("tokens.json")).unwrap();
    for token in tokens {
        for text in [&of_worker, &of_coordinator, &stored] {
            assert!(!text.contains(token.as_str()), "a token in what a daemon said or stored");
        }
    }
    assert!(of_coordinator.contains("sweep admitted"), "the log was on: {of_coordinator}");
}

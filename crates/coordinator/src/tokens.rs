//! Who may talk to a coordinator: bearer tokens with roles. `token` in the data directory is the owner's, in plain text,
//! readable by him alone. All others stand in `tokens.json` as BLAKE3 digests: what is stored cannot be used. A slow hash
//! (as for passwords) would add nothing, because a token is 256 random bits and cannot be guessed from its digest.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use isoloss_sweep::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const FILE: &str = "tokens.json";
const VERSION: u32 = 1;
/// Every request is held against all of them.
const TOKENS_MAX: usize = 1000;
const NAME_CHARS_MAX: usize = 64;
/// What tokens are called that nobody named: any number of them.
pub const UNNAMED: &str = "unnamed";
/// Digits of a digest by which people name a token.
const ID_DIGITS: usize = 12;

/// How far a token goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads sweeps, runs and workers.
    Viewer,
    /// Also plans, submits and gives orders.
    Submitter,
    /// Takes runs, reports on them and reads corpora; nothing else.
    Worker,
    /// Everything.
    Admin,
}

impl Role {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Worker => "worker",
            Self::Admin => "admin",
        }
    }

    /// Whether whoever has this role may do what `needed` is for.
    pub fn allows(self, needed: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Submitter => matches!(needed, Self::Submitter | Self::Viewer),
            Self::Viewer | Self::Worker => self == needed,
        }
    }
}

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The first digits of the digest.
    pub id: String,
    pub name: String,
    pub role: Role,
    pub created_at: Timestamp,
    /// BLAKE3 of the token.
    digest: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    tokens: Vec<TokenRow>,
}

/// Why tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} is not a list of tokens of version {VERSION}: {what}; put a copy of it back, or move it away and make new \
         tokens with `isoloss token create`: those in it are then good no more"
    )]
    Garbled { path: PathBuf, what: String },
    #[error("a token's name has 1 to {NAME_CHARS_MAX} printable characters, got {0:?}")]
    Name(String),
    #[error("there are {TOKENS_MAX} tokens already; revoke some with `isoloss token revoke`")]
    Many,
    #[error("no token {0:?}; `isoloss token list` shows them")]
    Unknown(String),
    #[error("more than one token is called {name:?}; name one by its id: {}", ids.join(", "))]
    Ambiguous { name: String, ids: Vec<String> },
    #[error("a token is called {0:?} already; choose another name, or revoke that one first")]
    Taken(String),
}

/// Makes a token and gives it, which is the only time that it can be seen. A running coordinator knows it at once.
pub fn create(data_dir: &Path, role: Role, name: &str) -> Result<(TokenRow, String), TokenError> {
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(TokenError::Name(name.to_owned()));
    }
    change(data_dir, |tokens, at| {
        if tokens.len() >= TOKENS_MAX {
            return Err(TokenError::Many);
        }
        // A name is what people revoke by.
        if name != UNNAMED && tokens.iter().any(|row| row.name == name) {
            return Err(TokenError::Taken(name.to_owned()));
        }
        let token = random().map_err(at)?;
        let digest = Digest::of(token.as_bytes());
        let id = digest.to_string()[..ID_DIGITS].to_owned();
        let row = TokenRow { id, name: name.to_owned(), role, created_at: Timestamp::now(), digest };
        tokens.push(row.clone());
        Ok((row, token))
    })
}

/// All tokens but the owner's, oldest first.
pub fn list(data_dir: &Path) -> Result<Vec<TokenRow>, TokenError> {
    read(&data_dir.join(FILE))
}

/// Ends a token by its id or name. A running coordinator refuses it from the next request on.
pub fn revoke(data_dir: &Path, word: &str) -> Result<TokenRow, TokenError> {
    change(data_dir, |tokens, _| {
        let of_id = tokens.iter().position(|row| row.id == word);
        let named = tokens.iter().enumerate().filter(|(_, row)| row.name == word);
        let named: Vec<(usize, &str)> = named.map(|(index, row)| (index, row.id.as_str())).collect();
        let index = match (of_id, named.as_slice()) {
            (Some(index), _) => index,
            (None, [(index, _)]) => *index,
            (None, []) => return Err(TokenError::Unknown(word.to_owned())),
            (None, several) => {
                let ids = several.iter().map(|(_, id)| (*id).to_owned()).collect();
                return Err(TokenError::Ambiguous { name: word.to_owned(), ids });
            }
        };
        Ok(tokens.remove(index))
    })
}

/// 256 random bits as 64 hexadecimal digits.
pub(crate) fn random() -> io::Result<String> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(Digest::from_bytes(seed).to_string())
}

/// Reads, changes and replaces the list, one change at a time.
fn change<T>(
    data_dir: &Path,
    change: impl FnOnce(&mut Vec<TokenRow>, &dyn Fn(io::Error) -> TokenError) -> Result<T, TokenError>,
) -> Result<T, TokenError> {
    let path = data_dir.join(FILE);
    let at = |source| TokenError::Io { path: path.clone(), source };
    let own = |path: &Path| OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let lock = own(&data_dir.join(".tokens.lock")).map_err(at)?;
    lock.lock().map_err(at)?;
    let mut tokens = read(&path)?;
    let answer = change(&mut tokens, &at)?;
    let partial = data_dir.join(".tokens.partial");
    let text = serde_json::to_vec_pretty(&Stored { version: VERSION, tokens }).map_err(|error| at(error.into()))?;
    let mut file = own(&partial).map_err(at)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(at)?;
    std::fs::rename(&partial, &path).map_err(at)?;
    File::open(data_dir).and_then(|folder| folder.sync_all()).map_err(at)?;
    Ok(answer)
}

fn read(path: &Path) -> Result<Vec<TokenRow>, TokenError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(TokenError::Io { path: path.to_owned(), source }),
    };
    let garbled = |what: String| TokenError::Garbled { path: path.to_owned(), what };
    let stored: Stored = serde_json::from_slice(&text).map_err(|error| garbled(error.to_string()))?;
    if stored.version != VERSION {
        return Err(garbled(format!("version {}", stored.version)));
    }
    Ok(stored.tokens)
}

/// Whom a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) role: Role,
    /// Names the token in the log and in limits: `owner`, or its id.
    pub(crate) id: String,
    /// Whether it is the token file of the data directory.
    pub(crate) is_owner: bool,
}

/// The tokens of a running coordinator, read again whenever the file changed.
#[derive(Debug)]
pub(crate) struct Tokens {
    path: PathBuf,
    owner: Digest,
    known: Mutex<(Option<Stamp>, Vec<TokenRow>)>,
}

/// Tells one state of a file from the next: each change puts a new file in its place.
type Stamp = (u64, i64, i64, u64);

impl Tokens {
    pub(crate) fn new(data_dir: &Path, owner: &str) -> Self {
        Self { path: data_dir.join(FILE), owner: Digest::of(owner.as_bytes()), known: Mutex::default() }
    }

    /// Who shows this token. Digests are compared: that takes the same time for every wrong token, and what it takes says
    /// nothing about the right one.
    pub(crate) fn bearer(&self, token: &str) -> Option<Bearer> {
        let digest = Digest::of(token.as_bytes());
        if digest == self.owner {
            return Some(Bearer { role: Role::Admin, id: "owner".to_owned(), is_owner: true });
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp =
            std::fs::metadata(&self.path).ok().map(|file| (file.ino(), file.mtime(), file.mtime_nsec(), file.size()));
        if known.0 != stamp {
            let rows = read(&self.path).unwrap_or_else(|error| {
                tracing::error!(%error, "no token but the owner's is taken until this is mended");
                Vec::new()
            });
            *known = (stamp, rows);
        }
        let row = known.1.iter().find(|row| row.digest == digest)?;
        Some(Bearer { role: row.role, id: row.id.clone(), is_owner: false })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tokens_are_stored_as_digests_and_revoked_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::new(dir.path(), "the owner's");
        assert!(tokens.bearer("the owner's").unwrap().is_owner);
        let (row, token) = create(dir.path(), Role::Worker, "node 7").unwrap();
        let stored = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(!stored.contains(&token) && stored.contains(&row.id));
        assert_eq!(std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(tokens.bearer(&token).unwrap().role, Role::Worker);
        assert!(matches!(create(dir.path(), Role::Viewer, "node 7"), Err(TokenError::Taken(_))));
        // Such as were made before names had to differ, and those that nobody named.
        let (first, _) = create(dir.path(), Role::Viewer, UNNAMED).unwrap();
        let (second, other) = create(dir.path(), Role::Viewer, UNNAMED).unwrap();
        assert_eq!(tokens.bearer(&other).unwrap().role, Role::Viewer);
        let ambiguous = revoke(dir.path(), UNNAMED).unwrap_err().to_string();
        assert!(ambiguous.contains(&first.id) && ambiguous.contains(&second.id), "{ambiguous}");
        assert_eq!(revoke(dir.path(), "node 7").unwrap().id, row.id);
        assert_eq!(tokens.bearer(&token), None);
        revoke(dir.path(), &first.id).unwrap();
        assert_eq!(revoke(dir.path(), UNNAMED).unwrap().id, second.id);
        assert!(list(dir.path()).unwrap().is_empty());
        assert!(matches!(revoke(dir.path(), "node 7"), Err(TokenError::Unknown(_))));
        assert!(matches!(create(dir.path(), Role::Viewer, "a\nb"), Err(TokenError::Name(_))));
    }

    #[test]
    fn a_garbled_list_lets_nobody_in_but_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        let tokens = Tokens::new(dir.path(), "the owner's");
        assert!(tokens.bearer("guess").is_none() && tokens.bearer("the owner's").is_some());
        assert!(list(dir.path()).is_err());
    }

    #[test]
    fn roles_are_no_ladder() {
        for role in [Role::Viewer, Role::Submitter, Role::Worker, Role::Admin] {
            assert!(role.allows(role) && Role::Admin.allows(role));
        }
        assert!(Role::Submitter.allows(Role::Viewer));
        assert!(!Role::Viewer.allows(Role::Submitter) && !Role::Worker.allows(Role::Viewer));
        assert!(!Role::Submitter.allows(Role::Worker) && !Role::Worker.allows(Role::Submitter));
    }
}

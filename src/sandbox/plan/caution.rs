//! Grants that give away more than they are made for: what one does about them is another place for a file.

use std::path::Path;

use super::{Access, Grant, Plan};

/// Folders that many programs keep files in.
const SHARED: &[&str] = &[
    "/dev/shm", "/etc", "/home", "/root", "/run", "/srv", "/tmp", "/usr", "/var", "/var/lib", "/var/log",
    "/var/run", "/var/tmp",
];

/// Something to be told to who writes the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caution {
    /// What could happen.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl Plan {
    /// Where a process that somebody broke into could do harm by what it is granted: files that say what it does in a folder
    /// that it may write, and unix sockets and logs in folders that others use.
    #[must_use]
    pub fn cautions(&self) -> Vec<Caution> {
        self.grants
            .iter()
            .filter_map(|grant| self.caution(grant))
            .collect()
    }

    fn caution(&self, grant: &Grant) -> Option<Caution> {
        let (folder, may, of_its_own) = match &grant.access {
            Access::Write(folder) => (folder, "may change", "a file that is written"),
            Access::Sockets(folder) => (folder, "may remove", "a unix socket"),
            _ => return None,
        };
        let (why, shown) = (&grant.why, folder.display());
        let endangered = self.read_below(folder);
        let what = if endangered.is_empty() {
            SHARED
                .iter()
                .any(|shared| folder == Path::new(shared))
                .then(|| "the files of others".to_owned())?
        } else {
            endangered.join(", ")
        };
        Some(Caution {
            message: format!(
                "{why} lies in `{shown}`: whoever breaks into the confined process {may} what is there and below it, and \
                 with it {what}"
            ),
            help: format!("give {of_its_own} a folder of its own, in which nothing else lies"),
        })
    }

    /// What is read in or below this folder, in the config's words.
    fn read_below(&self, folder: &Path) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        for grant in &self.grants {
            let is_below = matches!(&grant.access, Access::Read(read) if read.starts_with(folder));
            if is_below && !found.contains(&&*grant.why) {
                found.push(&grant.why);
            }
        }
        found
    }
}

//! Reading the files of a policy: the only part that touches the disk.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, thread};

use super::compile::{Surroundings, compile};
use super::deny_list::{self, DenyList};
use super::evaluate::Policy;
use super::file::{self, RuleFile};
use crate::yaml::{self, Diagnostic, Severity};

/// Files in one folder.
const MAX_FILES: usize = 1000;
/// Entries looked at in one folder, whatever they are.
const MAX_ENTRIES: usize = 10_000;
/// The most threads that parse.
const MAX_THREADS: usize = 4;
/// So many bytes of YAML take longer than to start a thread, by far.
const WORTH_A_THREAD: usize = 64 << 10;
/// Bytes over all files.
const MAX_TOTAL_BYTES: usize = 16 << 20;

/// Reads and compiles the policy at `path`: one file, or all `*.yaml` and `*.yml` of a folder in the order of their
/// names. Names that begin with a dot are passed over (Kubernetes keeps its `..data` there), symbolic links are
/// followed, folders inside the folder are not entered. Blocking.
///
/// # Errors
/// All findings in all files, when one of them is an error: the set is refused whole.
pub fn load(
    path: &Path,
    surroundings: Surroundings<'_>,
    now: SystemTime,
) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    let name = path.display().to_string();
    let paths = match fs::metadata(path) {
        Ok(kind) if kind.is_dir() => files_of(path).map_err(|error| vec![*error])?,
        Ok(_) => vec![path.to_path_buf()],
        Err(error) => {
            let help = "`policy.path` in the config names a file, or a folder of `*.yaml` files";
            let problem = Diagnostic::unreadable(path, "cannot read the policy", &error);
            return Err(vec![problem.with_help(help)]);
        }
    };
    let mut texts: Vec<(String, String)> = Vec::with_capacity(paths.len());
    let mut unreadable = Vec::new();
    let mut total = 0_usize;
    for path in paths {
        match read(&path) {
            Ok(text) => {
                total = total.saturating_add(text.len());
                texts.push((path.display().to_string(), text));
            }
            Err(error) => unreadable.push(*error),
        }
        if total > MAX_TOTAL_BYTES {
            let message = format!("the policy's files hold more than {MAX_TOTAL_BYTES} bytes together");
            return Err(vec![Diagnostic::of_file(&name, message)]);
        }
    }
    let compiled = compile(parse(&texts, total), surroundings, now);
    match compiled {
        Ok((policy, mut warnings)) if unreadable.is_empty() => {
            if policy.rules().is_empty() {
                let mut warning = Diagnostic::of_file(&name, "the policy has no rule: every peer is denied")
                    .with_help("add a rule with `action: allow`");
                warning.severity = Severity::Warning;
                warnings.push(warning);
            }
            Ok((policy, warnings))
        }
        Ok((_, found)) | Err(found) => {
            unreadable.extend(found);
            Err(unreadable)
        }
    }
}

/// Reads and compiles the deny list at `path`, which is one file. Blocking.
///
/// # Errors
/// All findings, when one of them is an error: the list is refused whole.
pub fn load_deny_list(path: &Path, now: SystemTime) -> Result<(DenyList, Vec<Diagnostic>), Vec<Diagnostic>> {
    let name = path.display().to_string();
    let bytes = crate::config::read_file(path).map_err(|error| vec![*error])?;
    let text = yaml::decode(&name, &bytes).map_err(|error| vec![*error])?;
    deny_list::compile(deny_list::read(&name, text), now)
}

fn read(path: &Path) -> Result<String, Box<Diagnostic>> {
    let bytes = crate::config::read_file(path)?;
    yaml::decode(&path.display().to_string(), &bytes).map(str::to_owned)
}

/// Parses the files, which are given by name and text, in their order. Most of the time that a large policy takes goes
/// into YAML: several threads share it.
fn parse(texts: &[(String, String)], total: usize) -> Vec<RuleFile> {
    let parse = |part: &[(String, String)]| -> Vec<RuleFile> {
        part.iter().map(|(name, text)| file::read(name, text)).collect()
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS);
    if total < WORTH_A_THREAD || threads < 2 {
        return parse(texts);
    }
    thread::scope(|scope| {
        let parts = texts.chunks(texts.len().div_ceil(threads).max(1));
        let parsing: Vec<_> = parts.map(|part| scope.spawn(move || parse(part))).collect();
        parsing
            .into_iter()
            .flat_map(|part| {
                part.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

/// The policy files of a folder, by name.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
    let name = folder.display().to_string();
    let failed = |error: &std::io::Error| {
        let problem = Diagnostic::unreadable(folder, "cannot read the folder", error);
        Box::new(problem)
    };
    let mut paths = Vec::new();
    for (count, entry) in fs::read_dir(folder).map_err(|e| failed(&e))?.enumerate() {
        if count >= MAX_ENTRIES {
            let message = format!("the folder has more than {MAX_ENTRIES} entries");
            return Err(Box::new(Diagnostic::of_file(&name, message)));
        }
        let path = entry.map_err(|e| failed(&e))?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let policy = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        // Expectations about policies may lie beside them.
        let test = path
            .file_stem()
            .is_some_and(|stem| stem.as_encoded_bytes().ends_with(b".test"));
        if policy && !hidden && !test {
            paths.push(path);
        }
    }
    if paths.len() > MAX_FILES {
        let message = format!(
            "the folder has {} policy files; {MAX_FILES} is the most",
            paths.len()
        );
        return Err(Box::new(Diagnostic::of_file(&name, message)));
    }
    paths.sort();
    Ok(paths)
}

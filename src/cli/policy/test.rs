//! `svidecar policy test`: expectations about policies, for the CI of whoever writes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::output::{print, report};
use super::super::{EXIT_FAILED, EXIT_GOOD, EXIT_USAGE};
use super::files;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Environment;
use crate::policy::Surroundings;
use crate::record::Direction;
use crate::trial::expectations::{self, Expectations, Subject};
use crate::trial::judge::{self, Coverage, judge};
use crate::trial::junit::{self, Case, Suite};
use crate::yaml::{self, Diagnostic, counted};

/// Files looked for below one folder, and entries looked at for it.
const MAX_FILES: usize = 10_000;
const MAX_ENTRIES: usize = 100_000;
/// Folders inside of folders.
const MAX_DEPTH: usize = 32;

/// What the name of a file of expectations ends in.
const SUFFIX: &str = ".test.yaml";

/// Hold policies against written expectations
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Expectations stand in files whose names end in .test.yaml. Of folders, all of these in and below are taken.

  config: svidecar.yaml             # relative to this file; or: policy: policy/, deny_list: …, trust_domain: …
  tests:
    - name: storefront may order
      from: spiffe://example.org/ns/shop/sa/storefront
      to: orders
      source: 10.0.0.7              # left out: unknown, as on a unix socket
      expect: allow
      by: storefront-places-orders  # left out: by whichever rule

Exit code: 0 when all hold, 1 when one does not, 2 when a file is wrong or there is no test.")]
pub struct TestArgs {
    /// Files of expectations, and folders that hold some
    #[arg(value_name = "DIR or FILE", default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// Also tell which rules match in no test
    #[arg(long)]
    pub coverage: bool,
    /// Write the results as JUnit XML, too
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(args: &TestArgs) -> u8 {
    let mut run = Run::new(Environment::of_process(), SystemClock.now());
    match find(&args.paths) {
        Ok(files) if files.is_empty() => {
            report(&format!("error: no file whose name ends in `{SUFFIX}` is there"));
            return EXIT_USAGE;
        }
        Ok(files) => files.iter().for_each(|file| run.file(file)),
        Err(problem) => {
            report(&format!("error: {problem}"));
            return EXIT_USAGE;
        }
    }
    let code = run.finish(args.coverage);
    match &args.junit {
        Some(path) => match fs::write(path, junit::document(&run.suites)) {
            Ok(()) => code,
            Err(error) => {
                report(&format!("error: cannot write `{}`: {error}", path.display()));
                EXIT_FAILED.max(code)
            }
        },
        None => code,
    }
}

/// One run over all files.
struct Run {
    environment: Environment,
    now: SystemTime,
    /// What is tested is read once, for all files that test it.
    subjects: BTreeMap<String, (judge::Subject, Coverage)>,
    suites: Vec<Suite>,
    bad_files: usize,
}

impl Run {
    const fn new(environment: Environment, now: SystemTime) -> Self {
        Self {
            environment,
            now,
            subjects: BTreeMap::new(),
            suites: Vec::new(),
            bad_files: 0,
        }
    }

    fn file(&mut self, path: &Path) {
        match self.read(path) {
            Ok((expectations, subject)) => self.judge(&expectations, &subject),
            Err(problems) => {
                self.bad_files += 1;
                problems
                    .iter()
                    .for_each(|problem| report(&format!("{problem}\n")));
            }
        }
    }

    /// The expectations of a file, and the key of what they are about.
    fn read(&mut self, path: &Path) -> Result<(Expectations, String), Vec<Diagnostic>> {
        let name = path.display().to_string();
        let bytes = crate::config::read_file(path).map_err(|problem| vec![*problem])?;
        let text = yaml::decode(&name, &bytes).map_err(|problem| vec![*problem])?;
        let expectations = expectations::read(&name, text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let key = format!("{:?}", in_folder(&expectations.subject, folder));
        if !self.subjects.contains_key(&key) {
            let (subject, warnings) = self.subject(&in_folder(&expectations.subject, folder))?;
            warnings
                .iter()
                .for_each(|warning| report(&format!("{warning}\n")));
            self.subjects.insert(key.clone(), (subject, Coverage::default()));
        }
        Ok((expectations, key))
    }

    fn subject(&self, subject: &Subject) -> Result<(judge::Subject, Vec<Diagnostic>), Vec<Diagnostic>> {
        match subject {
            Subject::Config(path) => {
                let configured = files::config(path, None, &self.environment, self.now)?;
                let inbound = configured
                    .listeners
                    .iter()
                    .filter(|l| l.direction == Direction::Inbound);
                let subject = judge::Subject {
                    listeners: Some(inbound.map(|listener| listener.name.clone()).collect()),
                    admission: configured.admission,
                    own_trust_domain: configured.settings.identity.trust_domain,
                };
                Ok((subject, configured.warnings))
            }
            Subject::Files {
                policy,
                deny_list,
                trust_domain,
            } => {
                let mut warnings = Vec::new();
                let surroundings = Surroundings {
                    listeners: None,
                    own_trust_domain: trust_domain.as_ref(),
                };
                let admission = files::admission(
                    Some(policy),
                    deny_list.as_deref(),
                    surroundings,
                    self.now,
                    &mut warnings,
                )?;
                let subject = judge::Subject {
                    admission,
                    own_trust_domain: trust_domain.clone(),
                    listeners: None,
                };
                Ok((subject, warnings))
            }
        }
    }

    fn judge(&mut self, expectations: &Expectations, subject: &str) {
        let Some((subject, coverage)) = self.subjects.get_mut(subject) else {
            return;
        };
        let cases = expectations.tests.iter().map(|test| Case {
            name: test.name.clone(),
            failure: {
                let at = test.at.or(expectations.at).unwrap_or(self.now);
                judge(subject, test, at, coverage).err()
            },
        });
        let cases: Vec<Case> = cases.collect();
        for (test, case) in expectations.tests.iter().zip(&cases) {
            if let Some(failure) = &case.failure {
                let indented = failure.text.replace('\n', "\n    ");
                print(
                    &format!(
                        "FAILED {}:{}: {}\n  {}\n    {indented}\n",
                        expectations.file, test.place.line, test.name, failure.message
                    ),
                    EXIT_GOOD,
                );
            }
        }
        self.suites.push(Suite {
            name: expectations.file.to_string(),
            cases,
        });
    }

    /// Says the results and returns the exit code.
    fn finish(&self, coverage: bool) -> u8 {
        let cases = || self.suites.iter().flat_map(|suite| &suite.cases);
        let failed = cases().filter(|case| case.failure.is_some()).count();
        let passed = cases().count() - failed;
        if coverage {
            self.tell_coverage();
        }
        let mut summary = format!(
            "{passed} passed, {failed} failed in {}",
            counted(self.suites.len(), "file")
        );
        if self.bad_files > 0 {
            summary.push_str(&format!(
                "; {} could not be read",
                counted(self.bad_files, "file")
            ));
        }
        let code = match (self.bad_files, failed) {
            (1.., _) => EXIT_USAGE,
            (0, 1..) => EXIT_FAILED,
            (0, 0) => EXIT_GOOD,
        };
        print(&summary, code)
    }

    fn tell_coverage(&self) {
        for (subject, coverage) in self.subjects.values() {
            let untouched = coverage.untouched(subject);
            let all = subject.admission.policy.rules().len();
            let mut text = format!(
                "{} of {} matched in a test",
                all - untouched.len(),
                counted(all, "rule")
            );
            for (name, place) in untouched {
                text.push_str(&format!("\n  not `{name}` ({place})"));
            }
            print(&format!("{text}\n"), EXIT_GOOD);
        }
    }
}

/// What is tested, with paths as seen from here.
fn in_folder(subject: &Subject, folder: &Path) -> Subject {
    match subject {
        Subject::Config(path) => Subject::Config(folder.join(path)),
        Subject::Files {
            policy,
            deny_list,
            trust_domain,
        } => Subject::Files {
            policy: folder.join(policy),
            deny_list: deny_list.as_ref().map(|path| folder.join(path)),
            trust_domain: trust_domain.clone(),
        },
    }
}

/// Files as they are named, and those of folders by name.
fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for path in paths {
        let kind =
            fs::metadata(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        if kind.is_dir() {
            let mut looked_at = 0;
            find_below(path, MAX_DEPTH, &mut looked_at, &mut found)?;
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn find_below(
    folder: &Path,
    depth: usize,
    looked_at: &mut usize,
    found: &mut Vec<PathBuf>,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot read the folder `{}`: {error}", folder.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        *looked_at += 1;
        if *looked_at > MAX_ENTRIES {
            return Err(format!(
                "more than {MAX_ENTRIES} files and folders: name the ones that hold tests"
            ));
        }
        entries.push(entry.map_err(failed)?);
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Of the entry itself: a link to a folder could lead back up.
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() && !hidden && depth > 0 {
            find_below(&path, depth - 1, looked_at, found)?;
        } else if !kind.is_dir() && path.to_string_lossy().ends_with(SUFFIX) && !hidden {
            found.push(path);
        }
        if found.len() > MAX_FILES {
            return Err(format!("more than {MAX_FILES} files of tests"));
        }
    }
    Ok(())
}

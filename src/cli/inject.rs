//! `svidecar inject`: the sidecar put into Kubernetes manifests.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use super::output::report;
use super::{EXIT_FAILED, EXIT_GOOD, EXIT_USAGE};
use crate::inject::annotations::is_image;
use crate::inject::{Done, MAX_BYTES, Options, inject};
use crate::yaml::{Diagnostic, counted};

/// Put the sidecar into Kubernetes manifests
///
/// Reads Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and Pods, also in Lists, and writes them with the
/// sidecar that their annotations ask for. Everything else is written as it is.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
On the pod template:
  annotations:
    svidecar.dev/inject: \"true\"
    svidecar.dev/inbound: orders:8443=8080
    svidecar.dev/policy: orders-policy
    svidecar.dev/outbound: payments:9001=payments.shop.svc:8443
    svidecar.dev/peer.payments: spiffe://example.org/ns/shop/sa/payments
docs/inject.md has all of them. Twice is once; annotations changed since are followed.

What became of each workload is said on standard error.

Exit code 0 when all is written, 2 when something in the manifests is wrong; nothing is written then.

Examples:
  svidecar inject orders.yaml | kubectl apply -f -
  kubectl kustomize overlays/production | svidecar inject --image registry.example/svidecar:0.1.0 - | kubectl apply -f -
  svidecar inject --in-place manifests/*.yaml")]
pub struct InjectArgs {
    /// Files of manifests; `-` for standard input
    #[arg(required = true, value_name = "FILE|-")]
    pub files: Vec<PathBuf>,
    /// The sidecar's image
    #[arg(long, value_name = "IMAGE", value_parser = image, default_value_t = Options::default().image)]
    pub image: String,
    /// The Workload API's socket in the folder that the SPIFFE CSI driver mounts
    #[arg(long, value_name = "NAME", value_parser = socket, default_value_t = Options::default().socket)]
    pub socket: String,
    /// Take the sidecar out
    #[arg(long)]
    pub remove: bool,
    /// Write the files themselves instead of standard output
    #[arg(long, short)]
    pub in_place: bool,
}

fn image(text: &str) -> Result<String, String> {
    match is_image(text) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of an image, such as `registry.example/svidecar:1.0`".to_owned()),
    }
}

fn socket(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    match !text.is_empty() && text.len() <= 64 && !text.starts_with('.') && text.bytes().all(good) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a file, such as `spire-agent.sock`".to_owned()),
    }
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(args: &InjectArgs) -> u8 {
    let options = Options {
        image: args.image.clone(),
        socket: args.socket.clone(),
        remove: args.remove,
    };
    if args.in_place && args.files.iter().any(|file| is_stdin(file)) {
        report("error: `--in-place` needs files; standard input cannot be written");
        return EXIT_USAGE;
    }
    // All is read and judged before anything is written.
    let (mut before, mut found) = (Vec::with_capacity(args.files.len()), Vec::new());
    for file in &args.files {
        match text_of(file) {
            Ok(text) => before.push((name_of(file), text)),
            Err(problem) => found.push(problem),
        }
    }
    let texts: Vec<(&str, &str)> = before.iter().map(|(name, text)| (&**name, &**text)).collect();
    let after = inject(&texts, &options);
    found.extend(after.as_ref().err().into_iter().flatten().cloned());
    let errors = found.iter().filter(|problem| problem.is_error()).count();
    let after = match after {
        Ok(after) if errors == 0 => after,
        _ => {
            found.iter().for_each(|problem| report(&format!("{problem}\n")));
            report(&format!("{}; nothing was written", counted(errors, "error")));
            return EXIT_USAGE;
        }
    };
    let mut written = Vec::with_capacity(after.len());
    for ((file, (name, before)), after) in args.files.iter().zip(before).zip(after) {
        say(&name, &after.done, options.remove);
        let after = after.text;
        written.push((file, Texts { before, after }));
    }
    match args.in_place {
        true => in_place(&written),
        false => to_stdout(&written),
    }
}

/// Says on standard error what became of a file's workloads, so that it is seen where nothing did.
fn say(file: &str, done: &[(String, Done)], remove: bool) {
    for (workload, what) in done {
        report(&match what {
            Done::PutIn => format!("{file}: {workload}: the sidecar is in"),
            Done::TakenOut => format!("{file}: {workload}: the sidecar is out"),
        });
    }
    if done.is_empty() {
        report(&match remove {
            true => format!("{file}: no workload had a sidecar"),
            false => format!("{file}: no workload asks for a sidecar"),
        });
    }
}

/// What is in a file, and what is to be.
struct Texts {
    before: String,
    after: String,
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// What messages call a file.
fn name_of(file: &Path) -> String {
    match is_stdin(file) {
        true => "standard input".to_owned(),
        false => file.display().to_string(),
    }
}

fn text_of(file: &Path) -> Result<String, Diagnostic> {
    let failed = |what: String| Diagnostic::of_file(&name_of(file), what);
    let bytes = match is_stdin(file) {
        true => read(io::stdin().lock()),
        false => File::open(file).and_then(read),
    };
    let bytes = bytes.map_err(|error| failed(format!("cannot read the file: {error}")))?;
    if bytes.len() > MAX_BYTES {
        return Err(failed(format!(
            "the file is larger than {MAX_BYTES} bytes, the most that is read"
        )));
    }
    String::from_utf8(bytes).map_err(|_| failed("the file is not UTF-8".to_owned()))
}

/// All there is, or one byte more than is allowed.
fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Each file is replaced whole, and only where something changed.
fn in_place(written: &[(&PathBuf, Texts)]) -> u8 {
    for (file, texts) in written.iter().filter(|(_, texts)| texts.before != texts.after) {
        if let Err(error) = replace(file, &texts.after) {
            report(&format!(
                "error: {}: cannot write the file: {error}",
                file.display()
            ));
            return EXIT_FAILED;
        }
    }
    EXIT_GOOD
}

/// Writes beside the file and renames over it, so that nobody sees half of it. Its mode stays; a link stays a link.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let file = fs::canonicalize(file)?;
    let mut beside = file.clone().into_os_string();
    beside.push(format!(".{}.svidecar", std::process::id()));
    let beside = PathBuf::from(beside);
    let done = File::create_new(&beside)
        .and_then(|mut new| {
            new.set_permissions(fs::metadata(&file)?.permissions())?;
            new.write_all(text.as_bytes())?;
            new.sync_all()
        })
        .and_then(|()| fs::rename(&beside, &file));
    if done.is_err() {
        // What could not be made or finished is not left behind; that it cannot be removed changes nothing.
        let _ = fs::remove_file(&beside);
    }
    done
}

fn to_stdout(written: &[(&PathBuf, Texts)]) -> u8 {
    let mut all = String::new();
    for (_, texts) in written {
        if !all.is_empty() {
            if !all.ends_with('\n') {
                all.push('\n');
            }
            if !texts.after.starts_with("---") {
                all.push_str("---\n");
            }
        }
        all.push_str(&texts.after);
    }
    let mut out = io::stdout().lock();
    match out.write_all(all.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => EXIT_GOOD,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => EXIT_GOOD,
        Err(error) => {
            report(&format!("error: cannot write: {error}"));
            EXIT_FAILED
        }
    }
}

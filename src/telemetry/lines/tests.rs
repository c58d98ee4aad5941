//! Lines as they lie on the disk, or come to who reads them.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use super::file::{LOOK, older};
use super::*;
use crate::record::Decision;
use crate::record::decision::tests::{bare, denial};

struct Scene {
    folder: tempfile::TempDir,
    writer: Writer<Arc<Decision>>,
}

fn json() -> Render<Arc<Decision>> {
    Box::new(|decision, line| {
        serde_json::to_writer(&mut *line, &**decision).unwrap();
        line.push(b'\n');
    })
}

fn writer(options: &FileOptions) -> Writer<Arc<Decision>> {
    let opened = open(Destination::File(options.clone())).unwrap();
    Writer::new(opened.0, "verdicts", Counter::default(), json())
}

fn options(folder: &Path, max_size: u64, keep: u32) -> FileOptions {
    FileOptions {
        path: folder.join("decisions.jsonl"),
        max_size,
        keep,
    }
}

fn scene(max_size: u64, keep: u32) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let writer = writer(&options(folder.path(), max_size, keep));
    Scene { folder, writer }
}

/// The length of the line of [`bare`].
fn line_length() -> u64 {
    as_u64(serde_json::to_vec(&bare()).unwrap().len() + 1)
}

impl Scene {
    fn file(&mut self) -> &mut RotatedFile {
        match &mut self.writer.target {
            Target::File(file) => file,
            Target::Stream(_) => panic!("it is a file"),
        }
    }

    fn path(&self) -> PathBuf {
        self.writer.target.name().into()
    }

    fn write(&mut self, count: usize) {
        for _ in 0..count {
            self.writer.take(Message::Item(Arc::new(bare())));
            self.writer.flush();
        }
    }

    /// The lines of the file and of the older ones, each of which must be whole.
    fn lines(&self) -> Vec<usize> {
        let path = self.path();
        let mut paths = vec![path.clone()];
        paths.extend((1..10).map(|number| older(&path, number)));
        paths
            .iter()
            .filter(|path| path.exists())
            .map(|path| {
                let text = fs::read_to_string(path).unwrap();
                for line in text.lines() {
                    serde_json::from_str::<serde_json::Value>(line).unwrap();
                }
                assert!(text.is_empty() || text.ends_with('\n'));
                text.lines().count()
            })
            .collect()
    }
}

#[test]
fn a_full_file_makes_room_and_only_so_many_are_kept() {
    for (lines_of_one, keep, written, expected) in [
        (3, 2, 3, vec![3]),
        (3, 2, 4, vec![1, 3]),
        (3, 2, 7, vec![1, 3, 3]),
        (3, 2, 10, vec![1, 3, 3]),
        (1, 3, 5, vec![1, 1, 1, 1]),
        (3, 0, 4, vec![1]),
    ] {
        let mut scene = scene(lines_of_one * line_length(), keep);
        scene.write(written);
        assert_eq!(scene.lines(), expected, "{lines_of_one} {keep} {written}");
        assert_eq!(scene.writer.dropped.get(), 0);
    }
}

#[test]
fn lines_that_wait_together_are_parted_among_files_as_well() {
    let mut scene = scene(3 * line_length(), 4);
    for _ in 0..8 {
        scene.writer.take(Message::Item(Arc::new(bare())));
    }
    scene.writer.flush();
    assert_eq!(scene.lines(), [2, 3, 3]);
}

#[test]
fn a_line_longer_than_a_file_has_one_for_itself() {
    let mut scene = scene(10, 4);
    scene.write(2);
    assert_eq!(scene.lines(), [1, 1]);
}

#[test]
fn only_our_user_may_read_it_and_what_was_there_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), 1 << 20, 1);
    fs::write(&options.path, "{\"version\":1}\n{\"cut\":").unwrap();
    fs::set_permissions(&options.path, Permissions::from_mode(0o644)).unwrap();
    let mut writer = writer(&options);
    writer.take(Message::Item(Arc::new(bare())));
    writer.flush();
    writer.target.part();
    writer.take(Message::Item(Arc::new(bare())));
    writer.flush();
    for path in [options.path.clone(), older(&options.path, 1)] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    // The line that a crash has cut stays by itself.
    let text = fs::read_to_string(older(&options.path, 1)).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[1], "{\"cut\":");
    assert!(lines[2].starts_with("{\"id\":"), "{text}");
}

#[test]
fn what_cannot_be_written_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: PathBuf| {
        let options = FileOptions {
            path,
            max_size: 1,
            keep: 1,
        };
        super::open(Destination::File(options)).unwrap_err().to_string()
    };
    let missing = open(folder.path().join("no/decisions.jsonl"));
    assert!(missing.contains("its folder must exist"), "{missing}");
    let target = folder.path().join("target");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for path in [folder.path().to_owned(), link, "/dev/null".into()] {
        let error = open(path);
        assert!(error.contains("is no regular file"), "{error}");
    }
    assert!(!target.exists());
}

#[test]
fn a_file_that_is_moved_or_removed_is_made_anew() {
    let mut scene = scene(1 << 20, 2);
    scene.write(1);
    let path = scene.path();
    fs::rename(&path, scene.folder.path().join("taken.jsonl")).unwrap();
    scene.file().looked = Instant::now() - LOOK;
    scene.write(2);
    assert_eq!(scene.lines(), [2]);
}

#[test]
fn while_writing_fails_verdicts_are_counted_and_afterwards_written_again() {
    let mut scene = scene(2 * line_length(), 1);
    scene.write(2);
    // Where the older file should go there is a folder that is not empty, so that no room can be made.
    let older = older(&scene.path(), 1);
    fs::create_dir(&older).unwrap();
    fs::write(older.join("x"), "").unwrap();
    scene.write(3);
    assert_eq!(scene.writer.dropped.get(), 3);
    assert_eq!(scene.writer.lost, Some(3));
    // The bound holds meanwhile.
    assert_eq!(fs::metadata(scene.path()).unwrap().len(), 2 * line_length());
    fs::remove_dir_all(&older).unwrap();
    scene.write(1);
    assert_eq!((scene.lines(), scene.writer.lost), (vec![1, 2], None));
    assert_eq!(scene.writer.dropped.get(), 3);
}

#[test]
fn a_full_disk_leaves_whole_lines() {
    // `/dev/full` takes nothing; the writer is handed it in place of its file.
    let mut scene = scene(1 << 20, 1);
    scene.write(1);
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    scene.file().file = Some(full);
    scene.file().looked = Instant::now();
    scene.write(1);
    assert_eq!(scene.writer.dropped.get(), 1);
    scene.write(1);
    assert_eq!((scene.lines(), scene.writer.lost), (vec![2], None));
}

#[test]
fn the_thread_writes_what_waits_before_it_ends_and_a_full_queue_drops() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), 1 << 30, 1);
    let dropped = Counter::default();
    let opened = open(Destination::File(options.clone())).unwrap();
    let (file, guard) = opened.start("verdicts", dropped.clone(), json()).unwrap();
    let verdict = Arc::new(denial());
    let sent = 3 * QUEUE;
    for _ in 0..sent {
        file.push(Arc::clone(&verdict));
    }
    drop(guard);
    // A slow machine may need more than the second that the guard waits: the thread goes on meanwhile.
    let written = || as_u64(fs::read_to_string(&options.path).unwrap().lines().count());
    let begun = Instant::now();
    while written() + dropped.get() < as_u64(sent) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", written());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(written() + dropped.get(), as_u64(sent));
    assert!(written() >= as_u64(QUEUE), "{}", written());
}

/// Whoever reads goes away, and another comes: what is lost meanwhile is counted, and no line is cut in silence.
#[test]
fn a_stream_that_nobody_reads_loses_and_goes_on_on_a_line_of_its_own() {
    let (reader, pipe) = io::pipe().unwrap();
    let stream = |pipe: io::PipeWriter| Stream::of(std::os::fd::OwnedFd::from(pipe).into());
    let mut writer = Writer::new(
        Target::Stream(stream(pipe)),
        "verdicts",
        Counter::default(),
        json(),
    );
    let write = |writer: &mut Writer<Arc<Decision>>| {
        writer.take(Message::Item(Arc::new(bare())));
        writer.flush();
    };
    write(&mut writer);
    drop(reader);
    write(&mut writer);
    write(&mut writer);
    assert_eq!((writer.dropped.get(), writer.lost), (2, Some(2)));
    let (reader, pipe) = io::pipe().unwrap();
    let cut = Stream {
        whole: false,
        ..stream(pipe)
    };
    writer.target = Target::Stream(cut);
    write(&mut writer);
    assert_eq!((writer.dropped.get(), writer.lost), (2, None));
    drop(writer);
    let lines: Vec<String> = BufReader::new(reader).lines().map(Result::unwrap).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], "");
    serde_json::from_str::<serde_json::Value>(&lines[1]).unwrap();
}

//! The file as it lies on the disk.

use super::*;
use crate::record::decision::tests::{bare, denial};

struct Scene {
    folder: tempfile::TempDir,
    writer: Writer,
}

fn options(folder: &Path, max_size: u64, keep: u32) -> DecisionFileOptions {
    DecisionFileOptions {
        path: folder.join("decisions.jsonl"),
        max_size,
        keep,
    }
}

fn scene(max_size: u64, keep: u32) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let opened = DecisionFile::open(options(folder.path(), max_size, keep)).unwrap();
    Scene {
        folder,
        writer: opened.0,
    }
}

/// The length of the line of [`bare`].
fn line_length() -> u64 {
    as_u64(serde_json::to_vec(&bare()).unwrap().len() + 1)
}

impl Scene {
    fn write(&mut self, count: usize) {
        for _ in 0..count {
            self.writer.take(Message::Verdict(Arc::new(bare())));
            self.writer.flush();
        }
    }

    /// The lines of the file and of the older ones, each of which must be whole.
    fn lines(&self) -> Vec<usize> {
        let path = &self.writer.options.path;
        let mut paths = vec![path.clone()];
        paths.extend((1..10).map(|number| older(path, number)));
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
        scene.writer.take(Message::Verdict(Arc::new(bare())));
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
    let mut writer = DecisionFile::open(options.clone()).unwrap().0;
    writer.take(Message::Verdict(Arc::new(bare())));
    writer.flush();
    writer.full = true;
    writer.take(Message::Verdict(Arc::new(bare())));
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
        let options = DecisionFileOptions {
            path,
            max_size: 1,
            keep: 1,
        };
        DecisionFile::open(options).unwrap_err().to_string()
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
    let path = scene.writer.options.path.clone();
    fs::rename(&path, scene.folder.path().join("taken.jsonl")).unwrap();
    scene.writer.looked = Instant::now() - LOOK;
    scene.write(2);
    assert_eq!(scene.lines(), [2]);
}

#[test]
fn while_writing_fails_verdicts_are_counted_and_afterwards_written_again() {
    let mut scene = scene(2 * line_length(), 1);
    scene.write(2);
    // Where the older file should go there is a folder that is not empty, so that no room can be made.
    let older = older(&scene.writer.options.path, 1);
    fs::create_dir(&older).unwrap();
    fs::write(older.join("x"), "").unwrap();
    scene.write(3);
    assert_eq!(scene.writer.dropped.get(), 3);
    assert_eq!(scene.writer.lost, Some(3));
    // The bound holds meanwhile.
    assert_eq!(
        fs::metadata(&scene.writer.options.path).unwrap().len(),
        2 * line_length()
    );
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
    scene.writer.file = Some(full);
    scene.writer.looked = Instant::now();
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
    let opened = DecisionFile::open(options.clone()).unwrap();
    let (file, guard) = opened.start(dropped.clone()).unwrap();
    let verdict = Arc::new(denial());
    let sent = 3 * QUEUE;
    for _ in 0..sent {
        file.record(&verdict);
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

//! Two processes on one log, as while a supervisor has a new sidecar take the place of an old one.

use std::fs::OpenOptions;
use std::io::Write as _;

use super::*;

impl Scene {
    fn lock(&self) -> Lock {
        Lock::take(&self.settings).unwrap()
    }

    /// Opens the log by a copy of the lock, as a child of the supervisor does.
    fn share(&self, lock: &Lock) -> (AuditLog, AuditGuard) {
        let copy = Lock(lock.0.try_clone().unwrap());
        self.run(open(&self.settings, Some(copy)).unwrap())
    }

    async fn record(&self, log: &AuditLog) {
        assert!(matches!(log.record(verdict(denial())), Receipt::Kept));
        log.flush().await;
    }

    fn entries(&self, kind: &str) -> usize {
        let mut text = String::new();
        for file in self.files() {
            let mut lines = segment::lines(&file).unwrap();
            std::io::Read::read_to_string(&mut lines, &mut text).unwrap();
        }
        text.matches(kind).count()
    }
}

#[tokio::test]
async fn what_two_write_in_turn_is_one_chain() {
    let scene = Scene::new();
    let lock = scene.lock();
    let (old, old_guard) = scene.share(&lock);
    scene.record(&old).await;
    let (new, new_guard) = scene.share(&lock);
    for _ in 0..20 {
        scene.record(&old).await;
        scene.record(&new).await;
        scene.record(&new).await;
    }
    drop((old, old_guard));
    scene.record(&new).await;
    drop((new, new_guard));
    scene.verify().unwrap();
    assert_eq!(scene.entries(r#""kind":"admission""#), 62);
    assert_eq!(scene.entries("repair"), 0);
}

#[tokio::test]
async fn two_who_write_at_once_through_many_segments_lose_nothing() {
    let mut scene = Scene::new();
    scene.settings.max_size = 16 * 1024;
    let lock = scene.lock();
    let each = 400;
    let writers: Vec<_> = (0..2).map(|_| scene.share(&lock)).collect();
    std::thread::scope(|scope| {
        for (log, _) in &writers {
            scope.spawn(move || {
                for number in 0..each {
                    assert!(matches!(log.record(verdict(denial())), Receipt::Kept));
                    if number % 7 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    for (log, _) in &writers {
        log.flush().await;
    }
    drop(writers);
    let summary = scene.verify().unwrap();
    assert!(scene.files().len() > 5, "{summary:?}");
    assert_eq!(scene.entries(r#""kind":"admission""#), 2 * each);
    assert_eq!(scene.entries(r#""lost""#), 0);
    assert!(Lock::take(&scene.settings).is_err(), "the supervisor holds it");
    drop(lock);
    scene.write(1);
    scene.verify().unwrap();
}

#[tokio::test]
async fn a_line_that_the_other_was_killed_over_is_taken_out_and_noted() {
    let scene = Scene::new();
    let lock = scene.lock();
    let (new, guard) = scene.share(&lock);
    scene.record(&new).await;
    let mut file = OpenOptions::new().append(true).open(scene.path()).unwrap();
    file.write_all(br#"{"version":1,"seq":2,"#).unwrap();
    scene.record(&new).await;
    drop((new, guard));
    scene.verify().unwrap();
    assert_eq!(scene.entries("repair"), 1);
    assert_eq!(scene.entries(r#""kind":"admission""#), 2);
}

#[tokio::test]
async fn a_log_that_is_moved_away_goes_on_in_a_new_file() {
    let scene = Scene::new();
    let lock = scene.lock();
    let (old, old_guard) = scene.share(&lock);
    let (new, new_guard) = scene.share(&lock);
    scene.record(&old).await;
    scene.record(&new).await;
    std::fs::rename(scene.path(), scene.folder.path().join("moved")).unwrap();
    // Who wrote last, and who did not.
    scene.record(&old).await;
    scene.record(&new).await;
    drop((old, old_guard, new, new_guard));
    let files = [scene.folder.path().join("moved"), scene.path().to_owned()];
    verify(&files, &Expectations::default()).unwrap();
}

#[tokio::test]
async fn who_cannot_have_its_turn_is_told_of_the_other() {
    let scene = Scene::new();
    let lock = scene.lock();
    let mut other = turn::Turn::shared(lock.0.try_clone().unwrap(), scene.path()).unwrap();
    other.take().unwrap();
    let refused = open(&scene.settings, Some(lock)).unwrap_err().to_string();
    assert!(
        refused.contains("older sidecar of the same supervisor"),
        "{refused}"
    );
}

/// The other began more segments than one, and ended before it wrote to the last of them, or over its first line.
#[tokio::test]
async fn who_was_idle_goes_on_behind_all_that_the_other_has_written() {
    for left in ["", r#"{"version":1,"seq":"#] {
        let mut scene = Scene::new();
        scene.settings.max_size = 16 * 1024;
        let lock = scene.lock();
        let (old, old_guard) = scene.share(&lock);
        scene.record(&old).await;
        let (new, new_guard) = scene.share(&lock);
        while scene.files().len() < 4 {
            scene.record(&new).await;
        }
        drop((new, new_guard));
        std::fs::write(scene.path(), left).unwrap();
        scene.record(&old).await;
        drop((old, old_guard));
        scene.verify().unwrap();
        assert_eq!(scene.entries("repair"), usize::from(!left.is_empty()));
    }
}

#[tokio::test]
async fn another_file_in_its_place_is_not_written_to() {
    let scene = Scene::new();
    let lock = scene.lock();
    let (log, guard) = scene.share(&lock);
    scene.record(&log).await;
    let other = Scene::new();
    other.write(0);
    std::fs::rename(scene.path(), scene.folder.path().join("moved")).unwrap();
    std::fs::copy(other.path(), scene.path()).unwrap();
    let before = scene.text();
    let _ = log.record(verdict(denial()));
    let mut failing = log.failing();
    let why = failing.wait_for(Option::is_some).await.unwrap().clone();
    assert!(why.unwrap().contains("another file was put in its place"));
    assert_eq!(scene.text(), before);
    drop((log, guard));
}

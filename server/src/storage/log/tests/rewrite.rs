//! Another number of shards.

use super::*;
use crate::runtime::platform::Disk;

fn options(fixture: &Fixture, old: (u32, u16), new: (u32, u16)) -> RewriteOptions {
    RewriteOptions {
        directory: "shards".into(),
        store_id: [7; 16],
        generation_old: old.0,
        shards_old: old.1,
        complete_old: true,
        generation_new: new.0,
        shards_new: new.1,
        keyring: fixture.keyring.clone(),
        sizes: fixture.sizes,
    }
}

fn owner_of(schema: &str, key: &str) -> usize {
    (schema.len() + key.bytes().map(usize::from).sum::<usize>()) % 3
}

fn open_shard(fixture: &Fixture, generation: u32, shard: u16) -> TestLog {
    let mut options = fixture.options(false);
    options.directory = format!("shards/{generation}/{shard}").into();
    options.identity = LogIdentity { store_id: [7; 16], generation, shard };
    options.metrics = Metrics::new(3);
    fixture.run(LogStorage::open(fixture.platform.clone(), options)).unwrap()
}

#[test]
fn every_entity_keeps_its_version_and_finds_its_new_owner() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    for number in 0..150 {
        fixture.put(&log, "s", &format!("k{number}"), &[b'1'; 1200]);
        fixture.put(&log, "t", &format!("k{}", number % 40), b"2");
    }
    for number in 0..50 {
        fixture.delete(&log, "s", &format!("k{number}"));
    }
    let highest = log.state.borrow().next_sequence - 1;
    drop(log);
    fixture.power_failure();
    let rewritten =
        fixture.run(rewrite_generation(fixture.platform.clone(), options(&fixture, (1, 1), (2, 3)), owner_of)).unwrap();
    assert_eq!(rewritten.entities, fixture.model.len() as u64);
    assert!(rewritten.version_max >= highest);
    fixture.power_failure();
    let mut found = Model::new();
    for shard in 0..3 {
        let log = open_shard(&fixture, 2, shard);
        assert!(log.open_report().clean);
        assert!(fixture.run(log.check_segments()).is_empty());
        let part = fixture.read_all(&log).unwrap();
        assert!(part.keys().all(|(schema, key)| owner_of(schema, key) == shard as usize));
        found.extend(part);
        let model = fixture.model.clone();
        assert!(fixture.put(&log, "s", "new", b"3") > rewritten.version_max);
        fixture.model = model;
        fixture.run(log.shutdown()).unwrap();
    }
    assert_eq!(found, fixture.model);
    fixture.check(&fixture.open());
    fixture.run(remove_generation(&fixture.platform, "shards".as_ref(), 1)).unwrap();
    assert!(fixture.platform.disk.paths().iter().all(|path| path.starts_with("shards/2")));
}

#[test]
fn too_little_space_is_said_before_anything_is_written_and_a_crash_leaves_the_old_generation() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    for number in 0..100 {
        fixture.put(&log, "s", &format!("k{number}"), &[b'1'; 1200]);
    }
    fixture.shut_down(log);
    let disk = fixture.platform.disk.clone();
    disk.set_space(disk.used() + (100 << 10));
    let before = disk.paths();
    let rewrite = |fixture: &Fixture| {
        fixture.run(rewrite_generation(fixture.platform.clone(), options(fixture, (1, 1), (2, 3)), owner_of))
    };
    assert!(matches!(rewrite(&fixture), Err(RewriteError::OutOfSpace { .. })));
    assert_eq!(disk.paths(), before);
    disk.set_space(u64::MAX);
    for die_after in [3, 10, 20, 30] {
        fixture.restart_on(disk.after_power_failure());
        fixture.platform.disk.die_after(die_after);
        assert!(rewrite(&fixture).is_err());
        fixture.restart_on(fixture.platform.disk.after_kill());
        fixture.check(&fixture.open());
        assert_eq!(rewrite(&fixture).unwrap().entities, fixture.model.len() as u64);
    }
    assert!(fixture.run(disk.read_dir("shards/1/0".as_ref())).is_ok());
}

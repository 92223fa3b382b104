//! Templates through their files, and a shard's view of them.

use super::*;
use crate::runtime::sim::{DiskImage, Effect, Fault, Operation, Sim, Survival};
use crate::schema::memory_disk::Memory;
use crate::schema::{CheckError, ShardTemplates};
use futures_lite::future::{block_on, poll_once, zip};
use std::io::ErrorKind;
use std::pin::pin;

const STRING: &[u8] = br#"{"type":"string"}"#;
const NUMBER: &[u8] = br#"{"type":"number"}"#;

fn file(id: &str) -> String {
    format!("data/templates/{id}.json")
}

fn open(memory: &Memory) -> (Arc<Templates>, ShardTemplates) {
    let templates = block_on(Templates::open(memory, Path::new("data/templates"))).expect("the directory opens");
    let shard = ShardTemplates::new(templates.clone());
    (templates, shard)
}

/// Checks, loading the template when it is asked for, as a caller must.
fn check(memory: &Memory, shard: &mut ShardTemplates, document: &str) -> Result<(), Failure> {
    for _ in 0..2 {
        match shard.check("s", document.as_bytes()) {
            Ok(()) => return Ok(()),
            Err(CheckError::Failed(failure)) => return Err(failure),
            Err(CheckError::NeedsLoad) => {
                let shared = shard.shared().clone();
                block_on(shared.load(memory, "s"));
            }
        }
    }
    panic!("a template that was loaded is known");
}

fn code(memory: &Memory, shard: &mut ShardTemplates, document: &str) -> Option<ErrorCode> {
    check(memory, shard, document).err().map(|failure| failure.code)
}

fn rescan(memory: &Memory, templates: &Templates) -> Vec<(String, FileChange)> {
    memory.pass(1000);
    block_on(templates.rescan(memory)).expect("the directory can be read")
}

fn change(what: FileChange) -> Vec<(String, FileChange)> {
    vec![("s".to_owned(), what)]
}

#[test]
fn without_a_template_any_json_passes_and_nothing_else() {
    let memory = Memory::default();
    let (_, mut shard) = open(&memory);
    assert!(shard.check("s", b"[1]").is_ok());
    assert_eq!(code(&memory, &mut shard, "[1"), Some(ErrorCode::InvalidJson));
    let metrics = crate::metrics::ShardMetrics::default();
    shard.report(&metrics);
    assert_eq!((metrics.validations.value(), metrics.validation_failures.value()), (2, 1));
}

#[test]
fn a_file_found_at_start_is_loaded_at_first_use_by_any_shard() {
    let memory = Memory::default();
    memory.write(&file("s"), STRING);
    let (templates, mut shard) = open(&memory);
    let mut other = ShardTemplates::new(templates.clone());
    assert!(matches!(shard.check("s", b"\"x\""), Err(CheckError::NeedsLoad)));
    block_on(templates.load(&memory, "s"));
    assert!(shard.check("s", b"\"x\"").is_ok());
    assert!(other.check("s", b"\"x\"").is_ok());
    assert_eq!(code(&memory, &mut other, "1"), Some(ErrorCode::SchemaViolation));
    assert_eq!(templates.ids(), ["s"]);
}

#[test]
fn a_put_is_durable_and_in_force_and_survives_a_restart() {
    let memory = Memory::default();
    let (templates, mut shard) = open(&memory);
    assert!(shard.check("s", b"1").is_ok());
    let before = templates.epoch();
    assert!(block_on(templates.put(&memory, "s", STRING)).expect("it is stored"));
    assert!(memory.is_durable(&file("s")));
    assert!(templates.epoch() > before && shard.refresh() == templates.epoch());
    assert_eq!(code(&memory, &mut shard, "1"), Some(ErrorCode::SchemaViolation));
    assert!(!block_on(templates.put(&memory, "s", NUMBER)).expect("it is replaced"));
    assert!(shard.check("s", b"1").is_ok());
    assert_eq!(memory.names(), [file("s")], "no temporary file is left");
    let (templates, mut shard) = open(&memory);
    assert_eq!(code(&memory, &mut shard, "\"x\""), Some(ErrorCode::SchemaViolation));
    assert_eq!(block_on(templates.get(&memory, "s")).expect("it can be read").as_deref(), Some(NUMBER));
}

#[test]
fn what_does_not_compile_or_has_no_name_is_not_stored() {
    let memory = Memory::default();
    let (templates, _) = open(&memory);
    for (id, text, expected) in [
        ("s", &br#"{"type":"strin"}"#[..], ErrorCode::InvalidSchema),
        ("a/b", STRING, ErrorCode::InvalidName),
        ("..", STRING, ErrorCode::InvalidName),
    ] {
        let failure = block_on(templates.put(&memory, id, text)).expect_err("it must be refused");
        assert_eq!(failure.code, expected);
    }
    assert!(memory.names().is_empty());
}

#[test]
fn a_deleted_template_is_gone_at_once_and_after_a_restart() {
    let memory = Memory::default();
    let (templates, mut shard) = open(&memory);
    block_on(templates.put(&memory, "s", STRING)).expect("it is stored");
    assert!(shard.check("s", b"1").is_err());
    block_on(templates.delete(&memory, "s")).expect("it is removed");
    assert!(shard.check("s", b"1").is_ok());
    assert_eq!(block_on(templates.get(&memory, "s")).expect("nothing to read"), None);
    let failure = block_on(templates.delete(&memory, "s")).expect_err("it is gone");
    assert_eq!(failure.code, ErrorCode::NotFound);
    assert!(open(&memory).0.ids().is_empty());
}

#[test]
fn edited_new_and_removed_files_are_picked_up() {
    let memory = Memory::default();
    let (templates, mut shard) = open(&memory);
    assert!(shard.check("s", b"1").is_ok());
    memory.write(&file("s"), STRING);
    assert_eq!(rescan(&memory, &templates), change(FileChange::Added));
    assert_eq!(code(&memory, &mut shard, "1"), Some(ErrorCode::SchemaViolation));
    memory.write(&file("s"), NUMBER);
    assert_eq!(rescan(&memory, &templates), change(FileChange::Changed));
    assert_eq!(code(&memory, &mut shard, "1"), None);
    memory.remove(&file("s"));
    assert_eq!(rescan(&memory, &templates), []);
    assert_eq!(code(&memory, &mut shard, "\"x\""), Some(ErrorCode::SchemaViolation), "one scan may have met an editor");
    assert_eq!(rescan(&memory, &templates), change(FileChange::Removed));
    assert_eq!(code(&memory, &mut shard, "\"x\""), None);
    assert_eq!(rescan(&memory, &templates), []);
}

#[test]
fn each_change_of_a_file_is_told_once_whether_or_not_anybody_uses_it() {
    let memory = Memory::default();
    memory.write(&file("s"), STRING);
    let (templates, _) = open(&memory);
    assert_eq!(rescan(&memory, &templates), [], "what was there at start is no change");
    memory.write(&file("s"), NUMBER);
    assert_eq!(rescan(&memory, &templates), change(FileChange::Changed));
    memory.write(&file("s"), b"{");
    assert_eq!(rescan(&memory, &templates), change(FileChange::Changed));
    assert_eq!(templates.damaged().len(), 1, "damage is noticed before anybody writes");
    for _ in 0..3 {
        assert_eq!(rescan(&memory, &templates), []);
    }
    memory.write(&file("s"), NUMBER);
    assert_eq!(rescan(&memory, &templates), change(FileChange::Changed));
    assert!(templates.damaged().is_empty());
    block_on(templates.put(&memory, "s", STRING)).expect("it is stored");
    assert_eq!(rescan(&memory, &templates), [], "what a client stored was not changed on the disk");
    block_on(templates.delete(&memory, "s")).expect("it is removed");
    assert_eq!(rescan(&memory, &templates), []);
}

#[test]
fn damage_that_is_too_fresh_to_be_told_from_a_repair_is_told_once() {
    let memory = Memory::default();
    let (templates, _) = open(&memory);
    memory.write(&file("s"), b"{");
    assert_eq!(block_on(templates.rescan(&memory)).expect("it can be read"), change(FileChange::Added));
    assert_eq!(rescan(&memory, &templates), []);
    assert_eq!(templates.damaged().len(), 1);
    memory.write(&file("s"), NUMBER);
    assert_eq!(block_on(templates.rescan(&memory)).expect("it can be read"), change(FileChange::Changed));
    assert!(templates.damaged().is_empty());
}

#[test]
fn of_many_changed_files_the_rest_is_compiled_at_its_next_use() {
    let memory = Memory::default();
    let (templates, mut shard) = open(&memory);
    for number in 0..LOADS_PER_SCAN_MAX {
        memory.write(&file(&format!("a{number:03}")), STRING);
    }
    memory.write(&file("s"), STRING);
    assert_eq!(rescan(&memory, &templates).len(), LOADS_PER_SCAN_MAX + 1);
    assert!(matches!(templates.state("a000"), TemplateState::Loaded(_)));
    assert!(matches!(templates.state("s"), TemplateState::Unloaded));
    assert_eq!(code(&memory, &mut shard, "1"), Some(ErrorCode::SchemaViolation));
}

#[test]
fn an_edit_that_leaves_size_and_time_as_they_were_is_noticed() {
    let memory = Memory::default();
    memory.pass(5000);
    memory.write(&file("s"), STRING);
    let (templates, mut shard) = open(&memory);
    assert_eq!(code(&memory, &mut shard, "1"), Some(ErrorCode::SchemaViolation));
    memory.write(&file("s"), NUMBER);
    rescan(&memory, &templates);
    assert_eq!(code(&memory, &mut shard, "1"), None);
}

#[test]
fn a_scan_that_finds_nothing_new_changes_nothing() {
    let memory = Memory::default();
    let (templates, mut shard) = open(&memory);
    block_on(templates.put(&memory, "s", STRING)).expect("it is stored");
    memory.write(&file("t"), STRING);
    rescan(&memory, &templates);
    let epoch = templates.epoch();
    for _ in 0..3 {
        rescan(&memory, &templates);
    }
    memory.write(&file("s"), STRING);
    rescan(&memory, &templates);
    assert_eq!(templates.epoch(), epoch, "the same text is no change");
    assert_eq!(code(&memory, &mut shard, "1"), Some(ErrorCode::SchemaViolation));
    memory.fail("read_dir", ErrorKind::PermissionDenied);
    assert!(block_on(templates.rescan(&memory)).is_err());
    assert_eq!(code(&memory, &mut shard, "1"), Some(ErrorCode::SchemaViolation), "what was known stays in force");
}

#[test]
fn a_damaged_file_refuses_writes_by_name_until_it_is_mended() {
    let memory = Memory::default();
    let large = vec![b' '; TEMPLATE_BYTES_MAX + 1];
    for broken in [&b"{"[..], b"", br#"{"type":5}"#, b"\xff", &large, br#"{"$ref":"http://example.com/"}"#] {
        memory.write(&file("s"), broken);
        let (templates, mut shard) = open(&memory);
        let failure = check(&memory, &mut shard, "1").expect_err("the template is damaged");
        assert_eq!(failure.code, ErrorCode::TemplateDamaged);
        assert!(failure.message.contains(&file("s")), "{}", failure.message);
        assert_eq!(templates.damaged().len(), 1);
        assert_eq!(templates.ids(), ["s"]);
        memory.write(&file("s"), NUMBER);
        rescan(&memory, &templates);
        assert_eq!(code(&memory, &mut shard, "1"), None);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_damaged_and_not_absent() {
    let memory = Memory::default();
    memory.write(&file("s"), STRING);
    let (templates, mut shard) = open(&memory);
    memory.fail("open", ErrorKind::PermissionDenied);
    assert_eq!(code(&memory, &mut shard, "\"x\""), Some(ErrorCode::TemplateDamaged));
    memory.write(&file("s"), STRING);
    rescan(&memory, &templates);
    assert_eq!(code(&memory, &mut shard, "\"x\""), None);
}

#[test]
fn a_damaged_template_is_not_handed_out_and_can_be_replaced_and_deleted() {
    let memory = Memory::default();
    memory.write(&file("s"), b"{");
    let (templates, mut shard) = open(&memory);
    let refusal = block_on(templates.get(&memory, "s")).expect_err("it is damaged, used or not");
    assert_eq!(refusal.code, ErrorCode::TemplateDamaged);
    assert!(refusal.message.contains(&file("s")) && refusal.message.contains("not valid JSON"), "{}", refusal.message);
    assert_eq!(code(&memory, &mut shard, "1"), Some(ErrorCode::TemplateDamaged));
    block_on(templates.delete(&memory, "s")).expect("it is removed");
    assert_eq!(block_on(templates.get(&memory, "s")).expect("there is none"), None);
    memory.write(&file("s"), b"{");
    rescan(&memory, &templates);
    assert!(!block_on(templates.put(&memory, "s", NUMBER)).expect("it is replaced"));
    assert_eq!(code(&memory, &mut shard, "1"), None);
}

#[test]
fn names_that_no_schema_can_have_are_not_templates() {
    let memory = Memory::default();
    for name in ["x.json.tmp", "readme.txt", ".json", "a..b.json", "json"] {
        memory.write(&format!("data/templates/{name}"), STRING);
    }
    assert!(open(&memory).0.ids().is_empty());
}

#[test]
fn failures_while_storing_are_told_and_leave_one_of_the_two_texts() {
    for (operation, kind, expected) in [
        ("open", ErrorKind::PermissionDenied, ErrorCode::OutcomeUnknown),
        ("write_at", ErrorKind::StorageFull, ErrorCode::OutOfSpace),
        ("sync_data", ErrorKind::Other, ErrorCode::OutcomeUnknown),
        ("rename", ErrorKind::Other, ErrorCode::OutcomeUnknown),
        ("sync_dir", ErrorKind::Other, ErrorCode::OutcomeUnknown),
        ("sync_dir", ErrorKind::StorageFull, ErrorCode::OutcomeUnknown),
    ] {
        let memory = Memory::default();
        let (templates, mut shard) = open(&memory);
        block_on(templates.put(&memory, "s", STRING)).expect("it is stored");
        memory.fail(operation, kind);
        let failure = block_on(templates.put(&memory, "s", NUMBER)).expect_err("it fails");
        assert_eq!(failure.code, expected, "{operation}");
        let on_disk = memory.read(&file("s")).expect("a text is there");
        assert_eq!(code(&memory, &mut shard, "1").is_none(), on_disk == NUMBER, "{operation}: memory follows the disk");
        block_on(templates.put(&memory, "s", NUMBER)).expect("it can be tried again");
    }
}

#[test]
fn concurrent_puts_end_with_one_of_the_texts_in_file_and_memory() {
    let memory = Memory::default();
    let (templates, mut shard) = open(&memory);
    let (first, second) = block_on(zip(templates.put(&memory, "s", STRING), templates.put(&memory, "s", NUMBER)));
    assert_ne!(first.expect("stored"), second.expect("stored"), "one of them created it");
    let text = memory.read(&file("s")).expect("a text is there");
    assert_eq!(block_on(templates.get(&memory, "s")).expect("it can be read"), Some(text.clone()));
    assert_eq!(code(&memory, &mut shard, "1").is_none(), text == NUMBER);
}

#[test]
fn a_put_that_is_abandoned_gives_its_turn_back() {
    let memory = Memory::default();
    let (templates, _) = open(&memory);
    let held = block_on(templates.turn.take());
    block_on(async {
        let mut waiting = pin!(templates.put(&memory, "s", STRING));
        assert!(poll_once(waiting.as_mut()).await.is_none());
    });
    drop(held);
    assert!(block_on(templates.put(&memory, "s", STRING)).is_ok());
}

#[test]
fn asking_for_many_schemas_does_not_grow_the_view_without_bound() {
    let memory = Memory::default();
    let (_, mut shard) = open(&memory);
    for number in 0..50_000 {
        assert!(shard.check(&number.to_string(), b"1").is_ok());
    }
    assert!(shard.known_schemas() <= 2 * TEMPLATES_MAX);
}

#[test]
fn small_files_are_published_and_read_whole_or_not_at_all() {
    let memory = Memory::default();
    let path = Path::new("data/file");
    let content: Vec<u8> = (0..100).collect();
    memory.write("data/file.tmp", b"left by a crash");
    block_on(publish(&memory, path, &content)).expect("it is published");
    assert!(memory.is_durable("data/file"));
    assert_eq!(block_on(read_whole(&memory, path, 100)).expect("it fits"), content);
    assert_eq!(block_on(read_whole(&memory, path, 99)).expect_err("it does not fit").kind(), ErrorKind::InvalidData);
    assert_eq!(block_on(read_whole(&memory, Path::new("none"), 9)).expect_err("none").kind(), ErrorKind::NotFound);
    memory.fail("sync_data", ErrorKind::Other);
    assert!(block_on(publish(&memory, path, b"new")).is_err());
    assert_eq!(memory.read("data/file").expect("the old one stands"), content);
    assert_eq!(memory.names(), ["data/file"]);
}

#[test]
fn a_file_that_could_not_be_read_once_is_looked_at_again() {
    let mut image = DiskImage::default();
    image.replace("/data/templates/s.json", STRING).expect("a file");
    let sim = Sim::on_disk(1, image);
    let platform = sim.platform();
    let run = async {
        let templates = Templates::open(&platform, Path::new("/data/templates")).await.expect("the directory opens");
        sim.inject(Fault::eio(&[Operation::Read]));
        templates.load(&platform, "s").await;
        assert!(matches!(templates.state("s"), TemplateState::Damaged(_)));
        templates.rescan(&platform).await.expect("the directory can be read");
        templates.load(&platform, "s").await;
        assert!(matches!(templates.state("s"), TemplateState::Loaded(_)));
    };
    sim.run_until(run).expect("no deadlock");
}

/// The rename of a killed process may be in the page cache only: before it is in force, it is made durable.
#[test]
fn what_a_start_finds_survives_a_power_loss() {
    let sim = Sim::new(1);
    let platform = sim.platform();
    let directory = Path::new("/templates");
    let put = async {
        let templates = Templates::open(&platform, directory).await.expect("the directory opens");
        sim.inject(Fault::next(&[Operation::SyncDir], Effect::Hang).on_path("templates"));
        templates.put(&platform, "s", STRING).await
    };
    assert!(sim.run_until(put).is_err(), "the put waits for ever");
    let next = Sim::on_disk(2, sim.kill());
    let platform = next.platform();
    let templates = next.run_until(Templates::open(&platform, directory)).expect("no deadlock").expect("it opens");
    assert_eq!(templates.ids(), ["s"]);
    let left = next.power_loss_image().after_power_loss(Survival::Nothing, 0);
    assert!(left.exists("/templates/s.json"));
}

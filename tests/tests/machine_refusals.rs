//! What the machine must offer: a process that may not have it is refused with its own status and told the remedy,
//! before anything is made in the data directory.

use delta_tests::binary;
use delta_tests::server::clean_environment;
use delta_tests::skips::skip;
use deltadb::exit::ExitStatus;
use std::path::Path;
use std::process::{Command, Output};

/// Runs a program that limits itself and then becomes the server. `SERVER` and its arguments follow the script.
fn serve_under(program: &str, script: &str, data_dir: &Path) -> Output {
    let mut command = Command::new(program);
    clean_environment(&mut command);
    command.args(["-c", script]).arg(binary::deltadb()).arg("serve").arg("--data-dir").arg(data_dir);
    command.args(["--rest-addr", "127.0.0.1:0", "--wire-addr", "127.0.0.1:0", "--shards", "1"]);
    command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

#[track_caller]
fn is_refused(output: &Output, status: ExitStatus, words: &[&str], data_dir: &Path) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(status.number())), "{said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(output.stdout.is_empty() && !data_dir.exists(), "nothing is begun: {said}");
}

#[test]
fn too_few_descriptors_or_too_little_lockable_memory_are_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let output = serve_under("sh", r#"ulimit -n 200 && exec "$0" "$@""#, &data);
    is_refused(&output, ExitStatus::LimitsTooLow, &["open files is 200", "ulimit -n", "LimitNOFILE"], &data);
    let output = serve_under("sh", r#"ulimit -l 16 && exec "$0" "$@""#, &data);
    is_refused(&output, ExitStatus::LimitsTooLow, &["locked memory is 16384", "ulimit -l", "LimitMEMLOCK"], &data);
}

/// Installs a seccomp filter under which `io_uring_setup` (425 on every architecture) is not permitted, as container
/// engines do.
const WITHOUT_IO_URING: &str = r#"
import ctypes, os, struct, sys
def bpf(code, yes, no, value):
    return struct.pack("=HBBI", code, yes, no, value)
filter = bpf(0x20, 0, 0, 0) + bpf(0x15, 0, 1, 425) + bpf(0x06, 0, 0, 0x00050001) + bpf(0x06, 0, 0, 0x7FFF0000)
text = ctypes.create_string_buffer(filter, len(filter))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(filter) // 8, ctypes.addressof(text))
libc = ctypes.CDLL(None, use_errno=True)
no_new_privileges, seccomp, mode_filter = 38, 22, 2
if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(seccomp, mode_filter, ctypes.byref(program), 0, 0):
    sys.exit(99)
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn a_machine_that_forbids_io_uring_is_refused_naming_seccomp() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let output = serve_under("python3", WITHOUT_IO_URING, &data);
    if output.status.code() == Some(99) {
        skip("this kernel takes no seccomp filter");
        return;
    }
    is_refused(&output, ExitStatus::RingRefused, &["io_uring", "seccomp"], &data);
}

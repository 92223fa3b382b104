#!/usr/bin/env python3
"""Where the time of a request goes: µs (perf, cpu-clock) and instructions (callgrind) of GET and PUT, by room.

    cargo build --release -p deltadb -p delta-bench
    bench/profile.py --directory DIR

The server runs on the first CPU allowed, the load on the last one: 50 connections, in a closed loop, with 16 requests in
flight on each, and at a fixed rate. With --keys the store is of another size, all in the cache. perf samples the
server's threads; each sample counts for the room of the function it fell into, so that inlined code counts for its
caller. Shares become µs through the CPU time for each request of the same run. callgrind counts the instructions of
the same path without kernel and sockets (valgrind does not run the server's io_uring): see limits/request_path.rs.
perf wants the right to look into the kernel (root, or kernel.perf_event_paranoid <= 1). Either half is left out, with
the reason, where its tool is missing.
"""
import argparse, collections, json, os, re, shutil, signal, subprocess, sys, tempfile, time

# The first pattern that a function's name matches decides; rooms of the server go by their path.
ROOMS = [
    ("the simulated machine", r"runtime::sim"),
    ("crypto: AES-GCM", r"aes|ghash|polyval|ctr::|deltadb::crypto|cipher|hkdf|sha2"),
    ("schema: parse and validate", r"simd_json|deltadb::schema|jsonschema|serde_json|regex"),
    ("storage: log and index", r"deltadb::storage|crc32c|rkyv"),
    ("cache", r"deltadb::cache"),
    ("engine", r"deltadb::engine|deltadb::command|xxh|xxhash"),
    ("gateway: http", r"gateway::http|hyper|httparse|http::|http_body"),
    ("gateway: wire and dispatch", r"deltadb::gateway|delta_wire|flatbuffers|deltadb::auth|deltadb::routing|deltadb::mailbox"),
    ("runtime: ring, sockets, executor", r"deltadb::runtime|glommio|io_uring|deltadb::start|deltadb::metrics|async_task|futures"),
    ("copying (libc)", r"memcpy|memmove|memset|memcmp|bcmp|copy_nonoverlapping"),
    ("allocation (libc)", r"malloc|free|calloc|realloc|alloc::|_int_|tcache|unlink_chunk|sysmalloc"),
    ("clock, mostly asked while spinning", r"clock_gettime|vdso"),
]
KERNEL = [
    ("kernel: block device and file system", r"blk|bio_|bio$|nvme|virtio|virtblk|ext4|iomap|dio|scsi|submit_|jbd2|fsync|vfs_|sbitmap|__get_user_pages|gup_|folio|vring|virtqueue|vp_notify|iowrite"),
    ("kernel: network", r"tcp|ip_|ip4|__ip|inet|skb|sock|net_|netif|napi|loopback|dev_|__dev|unix_|nf_|eth_|csum|rcv|xmit|process_backlog|lo_|sk_|__sk|neigh|fib|ipv4|qdisc|kfree_skb|bpf|release_sock|lock_sock|__copy_skb|simple_copy|validate_x|bbr_"),
    ("kernel: io_uring", r"^io_|io_uring|__io_|io_wq|io_req|req_"),
    ("kernel: scheduling and waking", r"sched|wake|ttwu|switch|rq_|pick_|dequeue|enqueue|update_|__update|load_balance|idle|futex|timer|hrtimer|eventfd|ep_poll|poll|rcu|preempt|task_"),
    ("kernel: copying", r"copy|memcpy|memset|rep_movs|clear_"),
    ("kernel: memory", r"kmalloc|kfree|kmem|slab|alloc|page|__free|memcg|mod_|fault"),
    ("kernel: system call entry and interrupts", r"entry|syscall|sysvec|irq|asm_|do_soft|__do_soft|x64_sys|pvclock|apic|exc_|raw_spin|lock"),
]


def room_of(symbol, is_kernel):
    for room, pattern in KERNEL if is_kernel else ROOMS:
        if re.search(pattern, symbol):
            return room
    return "kernel: other" if is_kernel else "other code of the server"


def run(command, **options):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, **options).stdout


class Server:
    def __init__(self, program, directory, cpu, flags):
        self.data = os.path.join(directory, "data")
        self.out = open(os.path.join(directory, "out"), "w+")
        self.child = subprocess.Popen(
            [program, "serve", "--data-dir", self.data, "--rest-addr", "127.0.0.1:0", "--wire-addr", "127.0.0.1:0", *flags],
            stdout=self.out, stderr=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
        text = ""
        while "\nready" not in text:
            if self.child.poll() is not None:
                sys.exit("the server ended before it was ready")
            time.sleep(0.05)
            self.out.seek(0)
            text = self.out.read()
        self.wire = re.search(r"^\s*wire\s+(\S+)", text, re.M).group(1)
        self.key = os.path.join(self.data, "admin.key")

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait()


def load(bench, server, cpu, *flags):
    command = [bench, "run", "--address", server.wire, "--credential-file", server.key, "--cpus", cpu, "--json", *flags]
    return json.loads(run(command))


def sampled(options, server, bench, cpu, name, directory, *flags):
    """µs for each request, by room."""
    data = os.path.join(directory, re.sub(r"\W", "-", name) + ".perf")
    recorder = subprocess.Popen(
        ["perf", "record", "-q", "-e", "cpu-clock", "-F", "4999", "-p", str(server.child.pid), "-o", data],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        # The generator polls at a fixed rate and must not give half of its CPU to this.
        preexec_fn=lambda: os.nice(19))
    try:
        result = load(bench, server, cpu, "--keys", options.keys, "--seconds", options.seconds, "--warmup", 0.2,
                      "--server-pid", server.child.pid, *flags)
    finally:
        recorder.send_signal(signal.SIGINT)
        _, errors = recorder.communicate()
    if recorder.returncode not in (0, -signal.SIGINT, 130):
        sys.exit(f"perf record failed: {errors.strip()}")
    report = run(["perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none", "--percent-limit", "0",
                  "-F", "overhead,dso,symbol", "-w", "0,0,400", "--field-separator", "|"])
    shares = collections.Counter()
    functions = collections.Counter()
    for line in report.splitlines():
        match = re.match(r"\s*([\d.]+)%?\s*\|\s*([^|]+?)\s*\|\s*\[(.)\]\s*(.*)", line)
        if match:
            share, _, kind, symbol = match.groups()
            room = room_of(symbol, kind == "k")
            shares[room] += float(share)
            functions[(room, symbol.strip()[:90])] += float(share)
    total = sum(shares.values()) or 1
    cpu_us = result["server_cpu_us_per_request"]
    print(f"{name}: {result['requests_per_second']:,.0f} requests/s, {cpu_us:.2f} µs of the server's CPU each")
    if options.functions:
        for (room, symbol), share in functions.most_common(options.functions):
            print(f"  {share:6.2f} %  {room:42} {symbol}")
    return {room: share / total * cpu_us for room, share in shares.items()}


def counted(program, name, requests, directory):
    """Instructions for each request, by room."""
    out = os.path.join(directory, name + ".callgrind")
    run(["valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*measured_requests*",
         f"--callgrind-out-file={out}", program, "request-path", "--requests", requests, *(["--put"] if name == "put" else [])])
    listing = run(["callgrind_annotate", "--threshold=100", "--show=Ir", out])
    counts = collections.Counter()
    for line in listing.splitlines():
        match = re.match(r"\s*([\d,]+)\s*(?:\([^)]*\))?\s+(\S+?):(.+?)(?: \[.*\])?$", line)
        if match and "PROGRAM TOTALS" not in line:
            room = room_of(match.group(2) + " " + match.group(3), False)
            counts[room] += int(match.group(1).replace(",", "")) / requests
    return counts


def table(title, columns, digits):
    rooms = sorted({room for column in columns.values() for room in column},
                   key=lambda room: -max(column.get(room, 0) for column in columns.values()))
    print(f"\n| {title} | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    for room in rooms:
        values = [column.get(room, 0) for column in columns.values()]
        if max(values) >= 0.5 * 10 ** -digits:
            print(f"| {room} | " + " | ".join(f"{value:,.{digits}f}" for value in values) + " |")
    print("| **together** | " + " | ".join(f"**{sum(column.values()):,.{digits}f}**" for column in columns.values()) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default=os.path.join(os.path.dirname(__file__), "..", "target", "release"))
    parser.add_argument("--directory", help="on the disk that is to be measured [default: the temporary directory]")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--keys", type=int, default=10_000, help="documents in the store")
    parser.add_argument("--rate", type=int, default=40_000, help="requests a second at the fixed rate")
    parser.add_argument("--requests", type=int, default=20_000, help="requests that instructions are counted of")
    parser.add_argument("--functions", type=int, default=0, help="also show so many of the costliest functions")
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="delta-profile-") as directory:
        if shutil.which("perf"):
            bench = os.path.join(options.target, "delta-bench")
            cache = ["--cache-bytes", str(max(options.keys * 800, 256 << 20))]
            server = Server(os.path.join(options.target, "deltadb"), directory, cpus[0], cache)
            ways = {"": (), " × 16": ("--pipeline", 16), f" at {options.rate:,}/s": ("--rate", options.rate)}
            try:
                load(bench, server, cpus[-1], "--install-template", "--preload", "--keys", options.keys,
                     "--pipeline", 16, "--seconds", 0.2, "--warmup", 0)
                columns = {f"{name}{way}": sampled(options, server, bench, cpus[-1], f"{name}{way}", directory,
                                                   "--read-percent", percent, *flags)
                           for way, flags in ways.items() for name, percent in (("GET", 100), ("PUT", 0))}
            finally:
                server.stop()
            table(f"CPU time of a request, µs, 50 connections, {options.keys:,} documents", columns, 2)
        else:
            print("perf is not installed: no CPU time by room")
        if shutil.which("valgrind"):
            program = os.path.join(options.target, "delta-limits")
            columns = {name.upper(): counted(program, name, options.requests, directory) for name in ("get", "put")}
            for column in columns.values():
                column.pop("the simulated machine", None)
            table("Instructions of a request, without kernel and sockets", columns, 0)
        else:
            print("valgrind is not installed: no instructions by room")


if __name__ == "__main__":
    main()

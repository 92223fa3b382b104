//! What the wire protocol costs a request, without any socket: encode, verify, read, and the whole skin.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use delta_wire::encode::{self, Scratch};
use delta_wire::generated::{self as tables, Body};
use delta_wire::{Condition, FrameDecoder, read_frame, read_hot_request};
use std::hint::black_box;

const SCHEMA: &str = "people";
const KEY: &str = "user-00001234";
const DOCUMENT_BYTES: usize = 400;

fn frame_of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out.split_off(4)
}

fn encoders(criterion: &mut Criterion) {
    let document = vec![b'7'; DOCUMENT_BYTES];
    let mut group = criterion.benchmark_group("encode");
    let mut out = Vec::with_capacity(1 << 20);
    let mut bench = |name: &str, write: &mut dyn FnMut(&mut Vec<u8>)| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                write(&mut out);
                black_box(&out);
            });
        });
    };
    bench("get", &mut |out| encode::get(out, black_box(7), SCHEMA, KEY));
    bench("put_400", &mut |out| encode::put(out, black_box(7), SCHEMA, KEY, &document, Condition::None));
    bench("document_400", &mut |out| encode::document(out, black_box(7), 9, &document));
    bench("written", &mut |out| encode::written(out, black_box(7), 9, true));
    // What the hand-laid encoders are held against.
    let mut scratch = Scratch::new();
    bench("document_400_by_builder", &mut |out| {
        scratch.frame(out, black_box(7), Body::Document, |builder| {
            let content = Some(builder.create_vector(&document));
            tables::Document::create(builder, &tables::DocumentArgs { version: 9, content }).as_union_value()
        });
    });
    let mut scratch = Scratch::new();
    bench("written_by_builder", &mut |out| {
        scratch.frame(out, black_box(7), Body::Written, |builder| {
            tables::Written::create(builder, &tables::WrittenArgs { created: true, version: 9 }).as_union_value()
        });
    });
    group.finish();
}

fn readers(criterion: &mut Criterion) {
    let document = vec![b'7'; DOCUMENT_BYTES];
    let get = frame_of(|out| encode::get(out, 7, SCHEMA, KEY));
    let put = frame_of(|out| encode::put(out, 7, SCHEMA, KEY, &document, Condition::None));
    let reply = frame_of(|out| encode::document(out, 7, 9, &document));
    let mut group = criterion.benchmark_group("read");
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            let frame = read_frame(black_box(&get)).unwrap();
            let table = frame.body_as_get().unwrap();
            black_box((frame.request_id(), table.schema(), table.key()));
        });
    });
    group.bench_function("put_400", |bencher| {
        bencher.iter(|| {
            let frame = read_frame(black_box(&put)).unwrap();
            let table = frame.body_as_put().unwrap();
            let names = (frame.request_id(), table.schema(), table.key());
            black_box((names, table.document().bytes(), table.condition(), table.version()));
        });
    });
    group.bench_function("document_400", |bencher| {
        bencher.iter(|| {
            let frame = read_frame(black_box(&reply)).unwrap();
            let table = frame.body_as_document().unwrap();
            black_box((frame.request_id(), table.version(), table.content().bytes()));
        });
    });
    group.finish();
}

/// The hand-laid frames at their fixed positions, as the server reads them.
fn hot_readers(criterion: &mut Criterion) {
    let document = vec![b'7'; DOCUMENT_BYTES];
    let get = frame_of(|out| encode::get(out, 7, SCHEMA, KEY));
    let put = frame_of(|out| encode::put(out, 7, SCHEMA, KEY, &document, Condition::None));
    let mut group = criterion.benchmark_group("read_hot");
    for (name, frame) in [("get", &get), ("put_400", &put)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(read_hot_request(black_box(frame))).is_some());
        });
    }
    group.finish();
}

fn framing(criterion: &mut Criterion) {
    let mut stream = Vec::new();
    for request_id in 0..16 {
        encode::get(&mut stream, request_id, SCHEMA, KEY);
    }
    let mut group = criterion.benchmark_group("framing");
    group.throughput(Throughput::Elements(16));
    group.bench_function("16_gets_in_place", |bencher| {
        let mut decoder = FrameDecoder::new();
        bencher.iter(|| {
            let mut input = black_box(&stream[..]);
            while let Some(frame) = decoder.next(&mut input, 1 << 20).unwrap() {
                black_box(frame);
            }
        });
    });
    group.bench_function("16_gets_decoded_and_verified", |bencher| {
        let mut decoder = FrameDecoder::new();
        bencher.iter(|| {
            let mut input = black_box(&stream[..]);
            while let Some(frame) = decoder.next(&mut input, 1 << 20).unwrap() {
                black_box(read_frame(frame).unwrap().body_as_get());
            }
        });
    });
    group.finish();
}

criterion_group!(wire, encoders, readers, hot_readers, framing);
criterion_main!(wire);

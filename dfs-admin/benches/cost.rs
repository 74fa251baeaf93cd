//! What it costs a request to be counted. Beside it, a look at the clock: what counting would cost if it took one.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dfs_admin::{Count, Histogram, OpTimes};
use dfs_proto::request::Op;

fn cost(criterion: &mut Criterion) {
    let (count, times, ops) = (Count::new(), Histogram::new(), OpTimes::default());
    criterion.bench_function("count", |bench| bench.iter(|| black_box(&count).add(1)));
    criterion.bench_function("histogram", |bench| bench.iter(|| black_box(&times).took_us(black_box(130))));
    criterion.bench_function("operation", |bench| {
        bench.iter(|| black_box(&ops).answered(black_box(Op::Read), black_box(130), true));
    });
    criterion.bench_function("clock", |bench| {
        bench.iter(|| black_box(rustix::time::clock_gettime(rustix::time::ClockId::Boottime)));
    });
}

criterion_group!(benches, cost);
criterion_main!(benches);

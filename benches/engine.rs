//! Every stage of the CPU engine at CIFAR-10 shapes, in pairs (one query, one image) per second, so that a regression can
//! be located: tile transposition, energies per kind of window, weights, adjoint, accumulation, and both passes end to end.

mod support;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Axis;
use pspc_rs::stages::{self, Dense, Full, IMAGES_PER_PANEL, IMAGES_PER_SCAN_TILE, IMAGES_PER_TILE, Scan};
use pspc_rs::{Bank, Engine, Queries, threads};
use support::{SIDE, components, discs, noisy, waves};

/// (label, side, sigma): the levels of the published CIFAR-10 schedule that differ in kind.
const LEVELS: [(&str, usize, f64); 6] =
    [("full", 32, 20.0), ("23", 23, 5.3), ("15", 15, 3.3), ("7", 7, 1.1), ("3", 3, 0.3), ("3 small sigma", 3, 0.02)];

fn peak(criterion: &mut Criterion) {
    const ROUNDS: usize = 1000;
    let mut group = criterion.benchmark_group("peak");
    group.throughput(Throughput::Elements((ROUNDS * stages::CHAINS * IMAGES_PER_TILE) as u64));
    group.bench_function("fused multiply-adds", |b| b.iter(|| stages::peak(ROUNDS)));
    group.finish();
}

fn dense(criterion: &mut Criterion) {
    const TERMS: usize = 4;
    let images = waves(IMAGES_PER_TILE);
    let bank = Bank::from_u8(images.view()).expect("valid");
    let mut group = criterion.benchmark_group("stage");
    let smaller = LEVELS.iter().filter(|(_, side, sigma)| *side < SIDE && *sigma > 0.1);
    let squares = smaller.map(|&(label, side, sigma)| (label, components(side), sigma));
    for (i, (label, components, sigma)) in squares.chain([("discs", discs(9.6), 0.5)]).enumerate() {
        let (z, sigma) = (noisy(images.view(), 1, sigma), [sigma]);
        let queries = Queries::new(&bank, z.view(), &sigma).expect("valid");
        let mut stages = Dense::new(&bank, &components, &queries).expect("an instruction set of this CPU");
        group.throughput(Throughput::Elements(IMAGES_PER_TILE as u64));
        group.bench_function(BenchmarkId::new("energies", label), |b| b.iter(|| stages.energies()));
        group.bench_function(BenchmarkId::new("update", label), |b| b.iter(|| stages.update()));
        group.bench_function(BenchmarkId::new("normalise", label), |b| b.iter(|| stages.normalise()));
        group.bench_function(BenchmarkId::new("adjoint", label), |b| b.iter(|| stages.adjoint()));
        if i == 0 {
            group.bench_function("tile", |b| b.iter(|| stages.tile()));
            group.bench_function("tile squares", |b| b.iter(|| stages.tile_squares()));
            group.throughput(Throughput::Elements((TERMS * IMAGES_PER_TILE) as u64));
            group.bench_function("accumulate", |b| b.iter(|| stages.accumulate::<TERMS>()));
        }
    }
    scan(&mut group);
    group.finish();
}

/// The scan for candidates at small sigma, in fixed point of sixteen bits.
fn scan(group: &mut BenchmarkGroup<'_, WallTime>) {
    let images = waves(IMAGES_PER_SCAN_TILE);
    let (bank, components) = (Bank::from_u8(images.view()).expect("valid"), components(3));
    group.throughput(Throughput::Elements(IMAGES_PER_SCAN_TILE as u64));
    for (label, sigma, margin) in [("3, sigma .06", 0.06, 2800.0), ("3, sigma .002", 0.002, 3.0)] {
        let (z, sigma) = (noisy(images.view(), 1, sigma), [sigma]);
        let queries = Queries::new(&bank, z.view(), &sigma).expect("valid");
        let stages = Scan::new(&bank, &components, &queries, margin).expect("an instruction set of this CPU");
        let mut stages = stages.expect("near the data");
        group.bench_function(BenchmarkId::new("scan: tile", label), |b| b.iter(|| stages.tile()));
        group.bench_function(BenchmarkId::new("scan: energies", label), |b| b.iter(|| stages.energies()));
    }
}

/// The full window: twelve probes on a part of some images.
fn full(criterion: &mut Criterion) {
    const PROBES: usize = 12;
    let images = waves(IMAGES_PER_PANEL);
    let bank = Bank::from_u8(images.view()).expect("valid");
    let mut stages = Full::new(&bank, PROBES).expect("an instruction set of this CPU");
    let part = stages.part_len();
    let mut group = criterion.benchmark_group("full");
    group.throughput(Throughput::Elements((part * IMAGES_PER_PANEL) as u64));
    group.bench_function("load pixels", |b| b.iter(|| stages.load_pixels()));
    group.throughput(Throughput::Elements((part * IMAGES_PER_PANEL * PROBES) as u64));
    group.bench_function("means", |b| b.iter(|| stages.means()));
    group.throughput(Throughput::Elements((part * IMAGES_PER_TILE) as u64));
    group.bench_function("load images", |b| b.iter(|| stages.load_images()));
    group.throughput(Throughput::Elements((part * IMAGES_PER_TILE * PROBES) as u64));
    group.bench_function("energies", |b| b.iter(|| stages.energies()));
    group.finish();
}

fn end_to_end(criterion: &mut Criterion) {
    const QUERIES: usize = 8;
    let images = waves(2000);
    let bank = Bank::from_u8(images.view()).expect("valid");
    let mut group = criterion.benchmark_group("composite");
    group.sample_size(10).throughput(Throughput::Elements((QUERIES * bank.len()) as u64));
    for threads in [1, 2] {
        threads::set_num_threads(threads).expect("threads");
        let squares = LEVELS.iter().map(|&(label, side, sigma)| (label, components(side), sigma));
        for (label, components, sigma) in squares.chain([("discs", discs(9.6), 0.5)]) {
            let (z, sigma) = (noisy(images.view(), QUERIES, sigma), [sigma; QUERIES]);
            let queries = Queries::new(&bank, z.view(), &sigma).expect("valid");
            group.bench_function(BenchmarkId::new(label, format!("{threads} threads")), |b| {
                b.iter(|| Engine::Cpu.composite(&bank, &components, &queries, false, &mut |_, _| Ok(())));
            });
        }
    }
    group.finish();
}

/// What else a posterior is asked, beside the composite of [`end_to_end`].
fn posteriors(criterion: &mut Criterion) {
    const QUERIES: usize = 8;
    let images = waves(2000);
    let bank = Bank::from_u8(images.view()).expect("valid");
    let mut group = criterion.benchmark_group("posterior");
    group.sample_size(10).throughput(Throughput::Elements((QUERIES * bank.len()) as u64));
    for (label, side, sigma) in LEVELS {
        let (components, z, sigma) = (components(side), noisy(images.view(), QUERIES, sigma), [sigma; QUERIES]);
        let queries = Queries::new(&bank, z.view(), &sigma).expect("valid");
        let directions = z.mapv(f64::from).insert_axis(Axis(0));
        let evidence = || Engine::Cpu.evidence(&bank, &components, &queries, false, &mut |_, _| Ok(()));
        let posteriors = evidence().expect("valid");
        group.bench_function(BenchmarkId::new("evidence", label), |b| b.iter(evidence));
        group.bench_function(BenchmarkId::new("statistics", label), |b| {
            b.iter(|| posteriors.statistics(&bank, 5, &mut |_, _| Ok(())));
        });
        group.bench_function(BenchmarkId::new("jvp", label), |b| {
            let monitor = &mut |_, _| Ok(());
            b.iter(|| Engine::Cpu.jvp(&bank, &components, &queries, false, directions.view(), false, monitor));
        });
    }
    group.finish();
}

criterion_group!(benches, peak, dense, full, end_to_end, posteriors);
criterion_main!(benches);

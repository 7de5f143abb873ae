//! Every stage of the CPU engine at CIFAR-10 shapes, in pairs (one query, one image) a second, so that a regression has
//! an address: tile transposition, energies per kind of window, weights, spread, gather, and both passes end to end.

mod support;

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pspc_rs::cpu::energy::{EnergyRows, mask_energies};
use pspc_rs::cpu::gather::gather;
use pspc_rs::cpu::isa::Isa;
use pspc_rs::cpu::panel::{IMAGES, Panel, add_means, vectors};
use pspc_rs::cpu::probe::Probe;
use pspc_rs::cpu::rate::chains;
use pspc_rs::cpu::simd::{LANES, Lanes, WORDS};
use pspc_rs::cpu::spread::{SpreadRows, spread_masks};
use pspc_rs::cpu::stack::{Block, Stack};
use pspc_rs::cpu::tile::Tile;
use pspc_rs::cpu::weigh::{LaneState, Softmax, absorb, weigh};
use pspc_rs::cpu::whole;
use pspc_rs::cpu::words::{WordProbe, WordTile};
use pspc_rs::windows::{Kind, Windows};
use pspc_rs::{Bank, composite, threads};
use support::{SIDE, discs, noisy, waves, windows};

/// (label, windows, sigma), the levels of the published CIFAR-10 schedule that differ in kind.
const LEVELS: [(&str, usize, f64); 6] =
    [("full", 32, 20.0), ("23", 23, 5.3), ("15", 15, 3.3), ("7", 7, 1.1), ("3", 3, 0.3), ("3 small sigma", 3, 0.02)];

fn stages(criterion: &mut Criterion) {
    let isa = Isa::best().expect("a set this processor has");
    let images = waves(LANES);
    let pixels = images.as_slice().expect("contiguous");
    let bank = Bank::from_u8(images.view()).expect("valid");
    let mut tile = Tile::new(3, SIDE * SIDE);

    let mut group = criterion.benchmark_group("stage");
    group.throughput(Throughput::Elements(LANES as u64));
    group.bench_function("tile", |b| b.iter(|| tile.load(isa, black_box(pixels))));
    tile.load(isa, pixels);
    group.bench_function("tile squares", |b| b.iter(|| tile.square(isa)));
    tile.square(isa);

    let smaller = LEVELS.iter().filter(|(_, side, sigma)| *side < SIDE && *sigma > 0.1);
    let all = smaller.map(|&(label, side, sigma)| (label, windows(side), sigma));
    for (label, windows, sigma) in all.chain([("discs", discs(9.6), 0.5)]) {
        let z = noisy(images.view(), 1, sigma);
        let probe = Probe::new(&bank, &windows, z.index_axis(ndarray::Axis(0), 0), sigma, 0, false);
        if let Some(side) = whole::side(&windows, 3) {
            EnergyRows::default().square(isa, &windows, side, 127.5, &mut tile);
        }
        let rate = probe.rate as f32;
        let (rows, columns) = windows.grid();
        let count = windows.count();
        let mut energy = vec![Lanes::ZERO; count];
        group.bench_function(BenchmarkId::new("energies", label), |b| {
            let mut stage = energies_of(isa, &windows, &tile, &probe);
            b.iter(|| stage(&[], &mut energy));
        });
        let mut state = LaneState::default();
        state.start(count);
        group.bench_function(BenchmarkId::new("absorb", label), |b| {
            b.iter(|| absorb(isa, &energy, count, 0, rate, columns, &mut state));
        });
        let least = energy.iter().map(|e| e.0.iter().copied().fold(f32::MAX, f32::min));
        let shift: Vec<f32> = least.map(|least| (least * rate).round()).collect();
        let (scale, mut live) = (vec![1.0 / LANES as f32; count], vec![false; rows]);
        let softmax = Softmax { shift: &shift, scale: &scale, rate, cutoff: 45.0 };
        let mut weights = energy.clone();
        group.bench_function(BenchmarkId::new("weigh", label), |b| {
            b.iter(|| weigh(isa, &energy, &softmax, columns, &mut live, &mut weights));
        });
        let mut coefficients = vec![Lanes::ZERO; SIDE * SIDE];
        group.bench_function(BenchmarkId::new("spread", label), |b| {
            let mut stage = spread_of(isa, &windows, &live);
            b.iter(|| stage(&weights, &mut coefficients));
        });
    }
    words(isa, &mut group);
    let coefficients = vec![Lanes::splat(0.1); SIDE * SIDE];
    let mut sums = vec![0.0; bank.image_len()];
    group.throughput(Throughput::Elements(4 * LANES as u64));
    group.bench_function("gather", |b| {
        b.iter(|| gather(isa, &[(&tile, coefficients.as_slice()); 4], 0, SIDE * SIDE, black_box(&mut sums)));
    });
    group.finish();
}

/// The scan for candidates at small sigma: a tile of bytes as words, and the energies on it.
fn words(isa: Isa, group: &mut BenchmarkGroup<'_, WallTime>) {
    let images = waves(WORDS);
    let pixels = images.as_slice().expect("contiguous");
    let (bank, windows) = (Bank::from_u8(images.view()).expect("valid"), windows(3));
    let mut tile = WordTile::default();
    group.throughput(Throughput::Elements(WORDS as u64));
    group.bench_function("tile of words", |b| b.iter(|| tile.load(isa, black_box(pixels), bank.image_len())));
    for (label, sigma, margin) in [("3, sigma .06", 0.06, 2800.0), ("3, sigma .002", 0.002, 3.0)] {
        let z = noisy(images.view(), 1, sigma);
        let probe = Probe::new(&bank, &windows, z.index_axis(ndarray::Axis(0), 0), sigma, 0, false);
        let probe = WordProbe::new(&probe, 27, margin).expect("near the data");
        let mut least = [u16::MAX; WORDS];
        group.bench_function(BenchmarkId::new("energies in words", label), |b| {
            b.iter(|| {
                tile.energies(isa, &windows, 3, &probe, |_, energies| {
                    least = energies[0].0;
                });
                black_box(&least);
            });
        });
    }
}

/// A stage from one plane of values to another.
type Stage<'a> = Box<dyn FnMut(&[Lanes], &mut [Lanes]) + 'a>;

/// Energies of all windows of a tile, row by row or all masks at once; they come from the tile alone.
fn energies_of<'a>(isa: Isa, windows: &'a Windows, tile: &'a Tile<u8>, probe: &'a Probe) -> Stage<'a> {
    match windows.kind() {
        Kind::Full => Box::new(|_, _| {}),
        Kind::Masks(runs) => {
            let mut tables = Vec::new();
            Box::new(move |_, out| mask_energies(isa, windows, runs, tile, probe, &mut tables, out))
        }
        Kind::Square { side } => {
            let (mut rows, (_, columns)) = (EnergyRows::default(), windows.grid());
            let tiles = std::slice::from_ref(tile);
            Box::new(move |_, out| {
                rows.start(windows, *side, probe, tiles.len());
                for y in 0..SIDE {
                    let row = (y + 1).saturating_sub(*side);
                    rows.next(isa, windows, tiles, probe, &mut out[row * columns..][..columns]);
                }
            })
        }
    }
}

/// Coefficients of all pixels from weights of windows.
fn spread_of<'a>(isa: Isa, windows: &'a Windows, live: &'a [bool]) -> Stage<'a> {
    match windows.kind() {
        Kind::Full => Box::new(|_, _| {}),
        Kind::Masks(runs) => {
            let mut tables = Vec::new();
            Box::new(move |weights, out| spread_masks(isa, runs, weights, live, &mut tables, out))
        }
        Kind::Square { side } => {
            let (mut stage, (count, columns)) = (SpreadRows::default(), windows.grid());
            Box::new(move |weights, out| {
                stage.start(windows, *side);
                for (y, out) in out.chunks_exact_mut(SIDE).enumerate() {
                    if y < count {
                        stage.slot().copy_from_slice(&weights[y * columns..][..columns]);
                    }
                    stage.next(isa, y < count && live[y], out);
                }
            })
        }
    }
}

fn end_to_end(criterion: &mut Criterion) {
    const QUERIES: usize = 8;
    let images = waves(2000);
    let bank = Bank::from_u8(images.view()).expect("valid");
    let mut group = criterion.benchmark_group("composite");
    group.sample_size(10).throughput(Throughput::Elements((QUERIES * bank.len()) as u64));
    for threads in [1, 2] {
        threads::set_num_threads(threads).expect("threads");
        let all = LEVELS.iter().map(|&(label, side, sigma)| (label, windows(side), sigma));
        for (label, windows, sigma) in all.chain([("discs", discs(9.6), 0.5)]) {
            let z = noisy(images.view(), QUERIES, sigma);
            group.bench_function(BenchmarkId::new(label, format!("{threads} threads")), |b| {
                b.iter(|| composite(&bank, &windows, z.view(), &[sigma; QUERIES], false, &mut |_, _| Ok(())));
            });
        }
    }
    group.finish();
}

/// The full window: twelve probes on a part of some images.
fn panels(criterion: &mut Criterion) {
    const PROBES: usize = 12;
    let isa = Isa::best().expect("a set this processor has");
    let images = waves(IMAGES);
    let pixels = images.as_slice().expect("contiguous");
    let image_len = pixels.len() / IMAGES;
    let part = Panel::parts(image_len).next().expect("not empty");
    let values = vec![vec![Lanes::splat(0.5); vectors(image_len)]; PROBES];
    let mut panel = Panel::default();
    let parts: Vec<_> = Panel::parts(image_len).collect();
    let blocks = Block::all(&values.iter().map(|values| (values.as_slice(), true)).collect::<Vec<_>>(), &parts);
    let (mut stack, mut energies) = (Stack::default(), vec![Lanes::ZERO; PROBES]);
    let mut sums = vec![vec![Lanes::ZERO; vectors(image_len)]; PROBES];
    let mut group = criterion.benchmark_group("panel");
    group.throughput(Throughput::Elements((part.len() * LANES * IMAGES) as u64));
    group.bench_function("load", |b| b.iter(|| panel.load(isa, black_box(pixels), image_len, part.clone())));
    group.throughput(Throughput::Elements((part.len() * LANES * IMAGES * PROBES) as u64));
    let weights = vec![[0.1; IMAGES]; PROBES];
    group.bench_function("means", |b| b.iter(|| add_means(isa, &panel, &weights, false, black_box(&mut sums))));
    group.throughput(Throughput::Elements((part.len() * LANES * LANES) as u64));
    let some = &pixels[..LANES * image_len];
    group.bench_function("load a stack", |b| b.iter(|| stack.load(isa, black_box(some), image_len, part.clone())));
    group.throughput(Throughput::Elements((part.len() * LANES * LANES * PROBES) as u64));
    group.bench_function("energies", |b| {
        b.iter(|| {
            for block in &blocks {
                stack.add(isa, block, &mut energies);
            }
        });
    });
    group.finish();
}

/// The processor's peak, for comparison: elements are fused multiply-adds of one thread.
fn peak(criterion: &mut Criterion) {
    let isa = Isa::best().expect("a set this processor has");
    let mut group = criterion.benchmark_group("peak");
    group.throughput(Throughput::Elements((1000 * 7 * LANES) as u64));
    group.bench_function("fused multiply-adds", |b| b.iter(|| chains(isa, 1000, &Lanes::splat(0.5))));
    group.finish();
}

criterion_group!(benches, peak, stages, panels, end_to_end);
criterion_main!(benches);

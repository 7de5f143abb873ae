//! Every stage of the CPU engine at CIFAR-10 shapes, in pairs (one query, one image) a second, so that a regression has
//! an address: tile transposition, energies per kind of window, weights, spread, gather, and both passes end to end.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array3, Array4, ArrayView4};
use pspc_rs::cpu::energy::{EnergySpace, energies};
use pspc_rs::cpu::gather::gather;
use pspc_rs::cpu::isa::Isa;
use pspc_rs::cpu::probe::Probe;
use pspc_rs::cpu::simd::{LANES, Lanes};
use pspc_rs::cpu::spread::{SpreadSpace, spread};
use pspc_rs::cpu::tile::Tile;
use pspc_rs::cpu::weigh::{LaneState, absorb, weigh};
use pspc_rs::{Bank, Windows, composite, threads};

const SIDE: usize = 32;
/// (label, windows, sigma), the levels of the published CIFAR-10 schedule that differ in kind.
const LEVELS: [(&str, usize, f64); 6] =
    [("full", 32, 20.0), ("23", 23, 5.3), ("15", 15, 3.3), ("7", 7, 1.1), ("3", 3, 0.3), ("3 small sigma", 3, 0.02)];

/// Waves of random direction and phase: smooth like photographs, all different.
fn images(n: usize) -> Array4<u8> {
    Array4::from_shape_fn((n, 3, SIDE, SIDE), |(n, c, y, x)| {
        let (a, b, phase) = ((n * 7919 % 97) as f32, (n * 104_729 % 89) as f32, (n * 31 % 61 + 2 * c) as f32);
        let wave = (0.006 * (a * x as f32 + b * y as f32) + phase).sin() + 0.3 * (0.2 * (x + y) as f32 + a).cos();
        (127.5 + 90.0 * wave).clamp(0.0, 255.0) as u8
    })
}

/// Images plus normal noise (a sum of twelve uniforms).
fn noisy(images: ArrayView4<'_, u8>, queries: usize, sigma: f64) -> Array4<f32> {
    let mut seed = 1_u32;
    let mut uniform = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(seed >> 8) / f64::from(1 << 24)
    };
    Array4::from_shape_fn((queries, 3, SIDE, SIDE), |(q, c, y, x)| {
        let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        (f64::from(images[[q * 5, c, y, x]]) / 127.5 - 1.0 + sigma * normal) as f32
    })
}

/// Discs around every pixel: masks of about 290 pixels, as thresholded heat maps are.
fn discs() -> Windows {
    let masks = Array3::from_shape_fn((SIDE * SIDE, SIDE, SIDE), |(k, y, x)| {
        (k / SIDE).abs_diff(y).pow(2) + (k % SIDE).abs_diff(x).pow(2) < 93
    });
    Windows::masks(masks.view()).expect("discs cover the image")
}

fn windows(side: usize) -> Windows {
    Windows::square(SIDE, SIDE, side).expect("fits")
}

fn stages(criterion: &mut Criterion) {
    let isa = Isa::best();
    let images = images(LANES);
    let pixels = images.as_slice().expect("contiguous");
    let bank = Bank::from_u8(images.view()).expect("valid");
    let mut tile = Tile::new(bank.image_len());
    tile.load(pixels);

    let mut group = criterion.benchmark_group("stage");
    group.throughput(Throughput::Elements(LANES as u64));
    group.bench_function("tile", |b| b.iter(|| tile.load(black_box(pixels))));
    tile.load(pixels);

    let all = LEVELS.iter().map(|&(label, side, sigma)| (label, windows(side), sigma));
    for (label, windows, sigma) in all.chain([("discs", discs(), 0.5)]) {
        let z = noisy(images.view(), 1, sigma);
        let probe = Probe::new(&bank, z.index_axis(ndarray::Axis(0), 0), sigma, 0, false);
        let rate = probe.rate as f32;
        let (rows, columns) = windows.grid();
        let count = windows.count();
        let mut space = EnergySpace::default();
        let mut energy = vec![Lanes::ZERO; count];
        group.bench_function(BenchmarkId::new("energies", label), |b| {
            b.iter(|| energies(isa, &windows, &tile, &[&probe], &mut space, &mut [&mut energy]));
        });
        let mut second = energy.clone();
        group.bench_function(BenchmarkId::new("energies of two", label), |b| {
            b.iter(|| energies(isa, &windows, &tile, &[&probe; 2], &mut space, &mut [&mut energy, &mut second]));
        });
        let mut state = LaneState::default();
        state.start(count);
        group.bench_function(BenchmarkId::new("absorb", label), |b| {
            b.iter(|| absorb(isa, &energy, rate, columns, &mut state));
        });
        let least: Vec<f32> = energy.iter().map(|e| e.0.iter().copied().fold(f32::MAX, f32::min)).collect();
        let (scale, mut live) = (vec![1.0 / LANES as f32; count], vec![false; rows]);
        let mut weights = energy.clone();
        group.bench_function(BenchmarkId::new("weigh", label), |b| {
            b.iter(|| {
                weights.copy_from_slice(&energy);
                weigh(isa, &mut weights, &least, &scale, rate, 45.0, columns, &mut live)
            });
        });
        let mut coefficients = vec![Lanes::ZERO; SIDE * SIDE];
        let mut space = SpreadSpace::default();
        group.bench_function(BenchmarkId::new("spread", label), |b| {
            b.iter(|| spread(isa, &windows, &weights, &live, &mut space, &mut coefficients));
        });
    }
    let coefficients = vec![Lanes::splat(0.1); SIDE * SIDE];
    let mut sums = vec![0.0; bank.image_len()];
    group.throughput(Throughput::Elements(4 * LANES as u64));
    group.bench_function("gather", |b| {
        b.iter(|| gather(isa, &[(&tile, coefficients.as_slice()); 4], black_box(&mut sums)));
    });
    group.finish();
}

fn end_to_end(criterion: &mut Criterion) {
    const QUERIES: usize = 8;
    let images = images(2000);
    let bank = Bank::from_u8(images.view()).expect("valid");
    let mut group = criterion.benchmark_group("composite");
    group.sample_size(10).throughput(Throughput::Elements((QUERIES * bank.len()) as u64));
    for threads in [1, 2] {
        threads::set_num_threads(threads).expect("threads");
        let all = LEVELS.iter().map(|&(label, side, sigma)| (label, windows(side), sigma));
        for (label, windows, sigma) in all.chain([("discs", discs(), 0.5)]) {
            let z = noisy(images.view(), QUERIES, sigma);
            group.bench_function(BenchmarkId::new(label, format!("{threads} threads")), |b| {
                b.iter(|| composite(&bank, &windows, z.view(), &[sigma; QUERIES], false, &mut |_, _| Ok(())));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, stages, end_to_end);
criterion_main!(benches);

//! One level, timed by hand or counted by callgrind: microseconds per pair (one query, one image) of whole calls.
//!
//! ```text
//! cargo run --release --example pairs -- side=3 sigma=0.3 images=10000 queries=8 threads=2 repeats=5
//! ```
//!
//! `disc=R` takes discs of radius R around every pixel in place of squares; `masks=FILE` masks from a file of
//! `[component, row, column]` bytes; `data=FILE` images from a file of `[image, 3, 32, 32]` bytes in place of waves.

#[path = "../benches/support/mod.rs"]
mod support;

use std::error::Error;
use std::time::Instant;

use ndarray::{Array3, Array4};
use pspc_rs::{Bank, Components, Engine, Queries, threads};
use support::{SIDE, components, discs, noisy, waves};

fn main() -> Result<(), Box<dyn Error>> {
    let value = |key: &str| std::env::args().find_map(|arg| Some(arg.strip_prefix(key)?.strip_prefix('=')?.to_owned()));
    let number = |key: &str, default: f64| value(key).map_or(Ok(default), |text| text.parse::<f64>());
    let count = |key: &str, default: usize| value(key).map_or(Ok(default), |text| text.parse::<usize>());

    let (sigma, queries) = (number("sigma", 0.3)?, count("queries", 8)?);
    let images = match value("data") {
        None => waves(count("images", 2000)?),
        Some(file) => {
            let mut bytes = std::fs::read(file)?;
            let images = count("images", usize::MAX)?.min(bytes.len() / (3 * SIDE * SIDE));
            bytes.truncate(images * 3 * SIDE * SIDE);
            Array4::from_shape_vec((images, 3, SIDE, SIDE), bytes)?
        }
    };
    let components = match (value("masks"), value("disc")) {
        (Some(file), _) => {
            let bits: Vec<bool> = std::fs::read(file)?.iter().map(|&b| b != 0).collect();
            let masks = Array3::from_shape_vec((bits.len() / (SIDE * SIDE), SIDE, SIDE), bits)?;
            Components::masks(masks.view())?
        }
        (None, Some(radius)) => discs(radius.parse()?),
        (None, None) => components(count("side", 3)?),
    };
    if let Some(threads) = value("threads") {
        threads::set_num_threads(threads.parse()?)?;
    }
    let bank = Bank::from_u8(images.view())?;
    let z = noisy(images.view(), queries, sigma);
    let sigmas = vec![sigma; queries];
    let noisy = Queries::new(&bank, z.view(), &sigmas)?;
    let flips = value("flips").is_some();
    let mut times = Vec::new();
    let mut checksum = 0.0;
    for _ in 0..count("repeats", 5)? {
        let start = Instant::now();
        let denoised = Engine::Cpu.composite(&bank, &components, &noisy, flips, &mut |_, _| Ok(()))?;
        times.push(1e6 * start.elapsed().as_secs_f64() / (queries * bank.len()) as f64);
        checksum = denoised.iter().map(|&v| f64::from(v)).sum::<f64>();
    }
    times.sort_by(f64::total_cmp);
    let (best, median) = (times[0], times[times.len() / 2]);
    println!("best {best:.4} median {median:.4} microseconds per pair; sum of the result {checksum}");
    Ok(())
}

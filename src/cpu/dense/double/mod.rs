//! `Double`: the dense passes with energies and logits in float64, a few times slower than in float32. Weights are float32
//! again, so that the adjoint and the sums of pixels are the same.

mod energies;
mod softmax;

use super::arithmetic::{Arithmetic, EnergyBlock, ShardPosterior, TILES, TilePenalties};
use crate::components::Kind;
use crate::cpu::chunks::exact_chunks_mut;
use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::tile::{Pixel, Tile};
use crate::posterior::{Posterior, ShiftUnit};
use crate::simd::{F32x16, F64x16, LANES};
use energies::{MaskEnergies, Row, RowSums};
use softmax::{DoubleSoftmax, Normalise, Update, UpdateAndWeigh};

/// Energies and logits in float64.
pub(crate) struct Double;

/// Working space for energies.
pub(crate) struct DoubleSpace {
    /// `[tile][window]`.
    energies: Vec<F64x16>,
    /// Square windows: the rows in use, per tile.
    rows: Vec<RowSums>,
    /// Doubling tables of masks.
    tables: Vec<F64x16>,
}

/// Per window the least energy, and the reciprocal of the sum of weights relative to it.
pub(crate) type DoubleNormaliser = (Vec<f64>, Vec<f32>);

impl Arithmetic for Double {
    type Lanes = F64x16;
    type Space = DoubleSpace;
    type State = DoubleSoftmax;
    type Number = f64;
    type Normaliser = DoubleNormaliser;

    fn space(windows_at_once: usize) -> DoubleSpace {
        DoubleSpace {
            energies: vec![F64x16::ZERO; TILES * windows_at_once],
            rows: (0..TILES).map(|_| RowSums::default()).collect(),
            tables: Vec::new(),
        }
    }

    fn prepare<P: Pixel>(_space: &mut DoubleSpace, _job: &Job<'_, P>, _tiles: &mut [Tile<P>]) {}

    fn energies<P: Pixel>(
        space: &mut DoubleSpace,
        job: &Job<'_, P>,
        probe: usize,
        tiles: &[Tile<P>],
        penalties: &TilePenalties,
        mut consume: impl FnMut(EnergyBlock<'_, P, F64x16>),
    ) {
        let DoubleSpace { energies, rows, tables } = space;
        let (count, components) = (job.windows_at_once(), job.components_of(&job.probes[probe]));
        let factors = &job.probes[probe].factors;
        let energies = &mut energies[..tiles.len() * count];
        match components.kind() {
            Kind::Full => unreachable!("the full window has panels in place of tiles"),
            Kind::Masks(runs) => {
                for (tile, out) in tiles.iter().zip(exact_chunks_mut(energies, count)) {
                    job.isa.run(MaskEnergies { tile, factors, runs, tables, out: &mut *out });
                    mark_missing(tile, out);
                }
                penalise(energies, count, penalties);
                consume(EnergyBlock { tiles, probe, first: 0, count, energies });
            }
            Kind::Square { side } => {
                for rows in rows.iter_mut() {
                    rows.start(components, *side);
                }
                for y in 0..components.height() {
                    if job.is_stopped() {
                        return;
                    }
                    let per_tile = tiles.iter().zip(&mut *rows).zip(exact_chunks_mut(energies, count));
                    for ((tile, rows), out) in per_tile {
                        job.isa.run(Row { tile, factors, rows, y, out: &mut *out });
                        mark_missing(tile, out);
                    }
                    if let Some(row) = (y + 1).checked_sub(*side) {
                        penalise(energies, count, penalties);
                        consume(EnergyBlock { tiles, probe, first: row * count, count, energies });
                    }
                }
            }
        }
    }

    fn start(state: &mut DoubleSoftmax, shifts: &[f64], negligible: f32) {
        state.start(shifts, f64::from(negligible));
    }

    fn update<P: Pixel>(job: &Job<'_, P>, block: &EnergyBlock<'_, P, F64x16>, state: &mut DoubleSoftmax) {
        let EnergyBlock { probe, first, count, energies, .. } = *block;
        let logit_scale = job.probes[probe].logit_scale;
        job.isa.run(Update { energies, count, first, logit_scale, state });
    }

    fn update_and_weigh<P: Pixel>(
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, F64x16>,
        state: &mut DoubleSoftmax,
        active: &mut [bool],
        weights: &mut [F32x16],
        rescaled: &mut Vec<(usize, f64)>,
    ) {
        let EnergyBlock { probe, first, count, energies, .. } = *block;
        let logit_scale = job.probes[probe].logit_scale;
        active.fill(true);
        let update = Update { energies, count, first, logit_scale, state };
        job.isa.run(UpdateAndWeigh { update, weights, rescaled });
    }

    fn settle<P: Pixel>(_job: &Job<'_, P>, _state: &mut DoubleSoftmax) {}

    fn finish(state: &DoubleSoftmax) -> ShardPosterior<f64> {
        let (shift, sum) = state.least_and_sum();
        ShardPosterior { shift, sum }
    }

    fn shift_unit(probe: &Probe) -> ShiftUnit {
        ShiftUnit::Energies { logit_scale: probe.logit_scale }
    }

    fn normaliser(posterior: &Posterior) -> DoubleNormaliser {
        posterior.least_and_scale()
    }

    fn log_weights<P: Pixel>(
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, F64x16>,
        energies: &[F64x16],
        (least, _): &DoubleNormaliser,
        log_scale: &[f32],
        out: &mut [F32x16],
    ) {
        let windows = block.first..block.first + block.count;
        let logit_scale = job.probes[block.probe].logit_scale;
        let references = least[windows.clone()].iter().zip(&log_scale[windows]);
        for ((energies, (least, log_scale)), out) in energies.iter().zip(references).zip(out) {
            *out = F32x16(energies.0.map(|energy| (logit_scale * (least - energy)) as f32 + log_scale));
        }
    }

    fn scale((_, scale): &DoubleNormaliser) -> &[f32] {
        scale
    }

    fn normalise<P: Pixel>(
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, F64x16>,
        energies: &[F64x16],
        (least, scale): &DoubleNormaliser,
        columns: usize,
        active: &mut [bool],
        weights: &mut [F32x16],
    ) -> bool {
        let windows = block.first..block.first + block.count;
        let (least, scale) = (&least[windows.clone()], &scale[windows]);
        let logit_scale = job.probes[block.probe].logit_scale;
        job.isa.run(Normalise {
            energies,
            least,
            scale,
            logit_scale,
            cutoff: job.dense_cutoff,
            columns,
            active,
            weights,
        })
    }
}

/// Gives lanes without an image the largest energy.
fn mark_missing<P: Pixel>(tile: &Tile<P>, energies: &mut [F64x16]) {
    for energy in if tile.valid < LANES { energies } else { &mut [] } {
        energy.0[tile.valid..].fill(f64::MAX);
    }
}

/// Adds what the images of each tile are penalised with to energies `[tile][window]` of `count` windows; those of images that
/// do not count become the largest energy.
fn penalise(energies: &mut [F64x16], count: usize, penalties: &TilePenalties) {
    for (energies, penalties) in exact_chunks_mut(energies, count).zip(penalties) {
        let Some(penalties) = penalties else { continue };
        for energy in &mut *energies {
            energy.0.iter_mut().zip(penalties.bias).for_each(|(energy, bias)| *energy += bias);
        }
        for lane in penalties.lanes_left_out() {
            for energy in &mut *energies {
                energy.0[lane] = f64::MAX;
            }
        }
    }
}

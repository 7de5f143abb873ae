//! `Single`: the dense passes in float32, the fast ones.

use super::arithmetic::{Arithmetic, EnergyBlock, ShardPosterior, TILES, TilePenalties};
use super::energies::{MaskSpace, SquareEnergies, mask_energies};
use super::online_softmax::{LogWeights, Normalise, OnlineSoftmax, Softmax, Update, UpdateAndWeigh};
use super::residuals::Grid;
use crate::components::Kind;
use crate::cpu::chunks::exact_chunks_mut;
use crate::cpu::job::Job;
use crate::cpu::penalties::Penalties;
use crate::cpu::probe::Probe;
use crate::cpu::tile::{Pixel, Tile};
use crate::posterior::{Posterior, ShiftUnit};
use crate::regime::fixed_point_side;
use crate::simd::F32x16;

/// Energies and logits in float32.
pub(crate) struct Single;

/// Working space for energies.
pub(crate) struct SingleSpace {
    /// `[tile][window]`.
    energies: Vec<F32x16>,
    /// Square windows: the rows in use.
    squares: SquareEnergies,
    /// Sums of masks.
    masks: MaskSpace,
}

/// Per window the shift and the scale of its weights.
pub(crate) type SingleNormaliser = (Vec<f32>, Vec<f32>);

impl Arithmetic for Single {
    type Lanes = F32x16;
    type Space = SingleSpace;
    type State = OnlineSoftmax;
    type Number = f32;
    type Normaliser = SingleNormaliser;

    fn space(windows_at_once: usize) -> SingleSpace {
        let energies = vec![F32x16::ZERO; TILES * windows_at_once];
        SingleSpace { energies, squares: SquareEnergies::default(), masks: MaskSpace::default() }
    }

    /// The expanded form needs squares of pixels, or their sums over windows.
    fn prepare<P: Pixel>(space: &mut SingleSpace, job: &Job<'_, P>, tiles: &mut [Tile<P>]) {
        if !job.probes.iter().any(|probe| probe.regime.is_expanded()) {
            return;
        }
        let (components, [channels, ..]) = (&job.mirrors[0], job.bank.image_shape());
        let is_stopped = || job.is_stopped();
        for tile in tiles.iter_mut().take_while(|_| !is_stopped()) {
            match fixed_point_side(components, channels) {
                None => tile.square(job.isa),
                Some(side) => {
                    let reach = job.bank.reach() * job.bank.unit();
                    let grid = Grid::of(components, side, tile);
                    space.squares.square(job.isa, grid, reach, tile, is_stopped);
                }
            }
        }
    }

    fn energies<P: Pixel>(
        space: &mut SingleSpace,
        job: &Job<'_, P>,
        probe: usize,
        tiles: &[Tile<P>],
        penalties: &TilePenalties,
        mut consume: impl FnMut(EnergyBlock<'_, P, F32x16>),
    ) {
        let SingleSpace { energies, squares, masks } = space;
        let count = job.windows_at_once();
        let (values, components) = (&job.probes[probe], job.components_of(&job.probes[probe]));
        let energies = &mut energies[..tiles.len() * count];
        match components.kind() {
            Kind::Full => unreachable!("the full window has panels in place of tiles"),
            Kind::Masks(runs) => {
                for (tile, out) in tiles.iter().zip(exact_chunks_mut(energies, count)) {
                    mask_energies(job.isa, components, runs, tile, values, masks, out);
                }
                penalise(energies, count, penalties, values.logit_scale);
                consume(EnergyBlock { tiles, probe, first: 0, count, energies });
            }
            Kind::Square { side } => {
                squares.start(Grid::of(components, *side, &tiles[0]), values.terms(), tiles.len());
                for y in 0..components.height() {
                    if job.is_stopped() {
                        return;
                    }
                    squares.push_row(job.isa, tiles, values.terms(), energies);
                    if let Some(row) = (y + 1).checked_sub(*side) {
                        penalise(energies, count, penalties, values.logit_scale);
                        consume(EnergyBlock { tiles, probe, first: row * count, count, energies });
                    }
                }
            }
        }
    }

    fn start(state: &mut OnlineSoftmax, shifts: &[f64], negligible: f32) {
        state.start(shifts, negligible);
    }

    fn update<P: Pixel>(job: &Job<'_, P>, block: &EnergyBlock<'_, P, F32x16>, state: &mut OnlineSoftmax) {
        let EnergyBlock { probe, first, count, energies, .. } = *block;
        let logit_scale = job.probes[probe].logit_scale as f32;
        let (_, columns) = job.mirrors[0].grid();
        job.isa.run(Update { energies, count, first, logit_scale, columns, state });
    }

    fn update_and_weigh<P: Pixel>(
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, F32x16>,
        state: &mut OnlineSoftmax,
        active: &mut [bool],
        weights: &mut [F32x16],
        rescaled: &mut Vec<(usize, f64)>,
    ) {
        let EnergyBlock { probe, first, count, energies, .. } = *block;
        let logit_scale = job.probes[probe].logit_scale as f32;
        let (_, columns) = job.mirrors[0].grid();
        let update = Update { energies, count, first, logit_scale, columns, state };
        job.isa.run(UpdateAndWeigh { update, active, weights, rescaled });
    }

    fn settle<P: Pixel>(job: &Job<'_, P>, state: &mut OnlineSoftmax) {
        state.settle(job.isa);
    }

    fn finish(state: &OnlineSoftmax) -> ShardPosterior<f32> {
        let (shift, sum) = state.sums_over_lanes();
        ShardPosterior { shift, sum }
    }

    fn shift_unit(_probe: &Probe) -> ShiftUnit {
        ShiftUnit::PowersOfTwo
    }

    fn normaliser(posterior: &Posterior) -> SingleNormaliser {
        posterior.normaliser()
    }

    fn log_weights<P: Pixel>(
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, F32x16>,
        energies: &[F32x16],
        (shift, _): &SingleNormaliser,
        log_scale: &[f32],
        out: &mut [F32x16],
    ) {
        let windows = block.first..block.first + block.count;
        let (shift, log_scale) = (&shift[windows.clone()], &log_scale[windows]);
        let logit_scale = job.probes[block.probe].logit_scale as f32;
        job.isa.run(LogWeights { energies, shift, log_scale, logit_scale, out });
    }

    fn scale((_, scale): &SingleNormaliser) -> &[f32] {
        scale
    }

    fn normalise<P: Pixel>(
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, F32x16>,
        energies: &[F32x16],
        (shift, scale): &SingleNormaliser,
        columns: usize,
        active: &mut [bool],
        weights: &mut [F32x16],
    ) -> bool {
        let windows = block.first..block.first + block.count;
        let softmax = Softmax {
            shift: &shift[windows.clone()],
            scale: &scale[windows],
            logit_scale: job.probes[block.probe].logit_scale as f32,
            cutoff: job.dense_cutoff as f32,
        };
        job.isa.run(Normalise { energies, softmax, columns, active, weights })
    }
}

/// Adds what the images of each tile are penalised with to energies `[tile][window]` of `count` windows.
pub(crate) fn penalise(energies: &mut [F32x16], count: usize, penalties: &TilePenalties, logit_scale: f64) {
    for (energies, penalties) in exact_chunks_mut(energies, count).zip(penalties) {
        let Some(penalties) = penalties else { continue };
        let bias = penalties.bias.map(|bias| bias as f32);
        for energy in &mut *energies {
            energy.0.iter_mut().zip(bias).for_each(|(energy, bias)| *energy += bias);
        }
        for lane in penalties.lanes_left_out() {
            for energy in &mut *energies {
                energy.0[lane] = Penalties::energy_left_out(logit_scale);
            }
        }
    }
}

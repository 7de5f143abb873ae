//! `Arithmetic`: in which numbers the dense passes compute energies and logits. [`Single`](super::single::Single) is the
//! fast one; [`Double`](super::double::Double) serves where float32 has too few digits ([`crate::cpu::precision`]).

use crate::cpu::job::Job;
use crate::cpu::penalties::Penalties;
use crate::cpu::probe::Probe;
use crate::cpu::tile::{Pixel, Tile};
use crate::posterior::{Posterior, ShiftUnit};
use crate::simd::F32x16;

/// Tiles per group. More tiles share each costly sum across lanes, but the rows in use of all of them have to stay in the
/// first-level cache.
pub(crate) const TILES: usize = 2;

/// The penalties of the images of every tile of a group.
pub(crate) type TilePenalties = [Option<Penalties>; TILES];

/// Energies of a probe on some windows of a group of tiles.
pub(crate) struct EnergyBlock<'a, P: Pixel, L> {
    pub(crate) tiles: &'a [Tile<P>],
    pub(crate) probe: usize,
    /// The first of the windows: those of a row, or all where windows are masks.
    pub(crate) first: usize,
    /// Number of windows.
    pub(crate) count: usize,
    /// `[tile][window]`.
    pub(crate) energies: &'a [L],
}

/// What pass 1 finds on one shard, per window.
pub(crate) struct ShardPosterior<S> {
    pub(crate) shift: Vec<S>,
    pub(crate) sum: Vec<S>,
}

/// The numbers in which energies and logits are computed, and the stages that depend on them.
pub(crate) trait Arithmetic: 'static {
    /// Energies of sixteen images.
    type Lanes: Copy;
    /// Working space for the energies on a group of tiles.
    type Space: Send;
    /// The state of pass 1 on a shard.
    type State: Default + Send;
    /// A shift or a sum of pass 1.
    type Number: Copy + Into<f64> + Send;
    /// What turns energies into weights, per window.
    type Normaliser: Send + Sync;

    /// Space for blocks of so many windows.
    fn space(windows_at_once: usize) -> Self::Space;

    /// Computes what all probes share, on the tiles of a group.
    fn prepare<P: Pixel>(space: &mut Self::Space, job: &Job<'_, P>, tiles: &mut [Tile<P>]);

    /// Computes the energies of a probe, adds the `penalties` of every tile's images, and hands them to `consume` block by
    /// block. A block is a row of windows where windows are squares, else all windows. The full window has no tiles, see
    /// [`crate::cpu::full`].
    fn energies<P: Pixel>(
        space: &mut Self::Space,
        job: &Job<'_, P>,
        probe: usize,
        tiles: &[Tile<P>],
        penalties: &TilePenalties,
        consume: impl FnMut(EnergyBlock<'_, P, Self::Lanes>),
    );

    /// Starts pass 1 over with no image, at shifts that other images have led to, if any; images `negligible` powers of two
    /// below the best so far are passed over.
    fn start(state: &mut Self::State, shifts: &[f64], negligible: f32);

    /// Adds the weights of a block to the state of pass 1.
    fn update<P: Pixel>(job: &Job<'_, P>, block: &EnergyBlock<'_, P, Self::Lanes>, state: &mut Self::State);

    /// The same, and writes the weights relative to the state, `[tile][window]`. Marks in `active` the rows of windows on which
    /// any image comes near the best so far; the weights of others are not written. `rescaled` gets the windows whose earlier
    /// weights are to be multiplied with a number.
    fn update_and_weigh<P: Pixel>(
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, Self::Lanes>,
        state: &mut Self::State,
        active: &mut [bool],
        weights: &mut [F32x16],
        rescaled: &mut Vec<(usize, f64)>,
    );

    /// Keeps the sums of pass 1 from rounding too much, once every few hundred images.
    fn settle<P: Pixel>(job: &Job<'_, P>, state: &mut Self::State);

    /// What pass 1 found.
    fn finish(state: &Self::State) -> ShardPosterior<Self::Number>;

    /// What a shift counts.
    fn shift_unit(probe: &Probe) -> ShiftUnit;

    /// What turns the energies of a query into weights, or those of its mirror image.
    fn normaliser(posterior: &Posterior) -> Self::Normaliser;

    /// The scale of a normaliser, by which weights are multiplied at the end, per window.
    fn scale(normaliser: &Self::Normaliser) -> &[f32];

    /// Writes the base-2 logarithms of the posterior weights of the energies of one tile of a block; `log_scale` are those of
    /// the scale of all windows.
    fn log_weights<P: Pixel>(
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, Self::Lanes>,
        energies: &[Self::Lanes],
        normaliser: &Self::Normaliser,
        log_scale: &[f32],
        out: &mut [F32x16],
    );

    /// Writes the posterior weights of the energies of one tile of a block. Marks in `active` the rows of `columns` windows
    /// that hold any weight that counts; the others are not written. Returns whether any row is active.
    fn normalise<P: Pixel>(
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, Self::Lanes>,
        energies: &[Self::Lanes],
        normaliser: &Self::Normaliser,
        columns: usize,
        active: &mut [bool],
        weights: &mut [F32x16],
    ) -> bool;
}

//! The structures that kernels are given, field by field as `kernels/*.cu` declare them; a test compares the two.

use std::ffi::c_void;
use std::marker::PhantomData;

/// An address on the device; 0 is the null pointer.
pub(super) type Address = u64;

/// Declares a structure laid out as the CUDA structure of the same name.
macro_rules! kernel_struct {
    ($(#[$about:meta])* $name:ident { $($field:ident: $kind:ident),* $(,)? }) => {
        $(#[$about])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub(super) struct $name { $(pub(super) $field: $kind),* }

        impl KernelValue for $name {}

        #[cfg(test)]
        impl $name {
            /// Names and types of the fields.
            const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), stringify!($kind))),*];
        }
    };
}

kernel_struct! {
    /// The images of one step.
    Images {
        pixels: Address,
        channels: i32,
        height: i32,
        width: i32,
        first: i32,
        count: i32,
        shard_len: i32,
        first_shard: i32,
        shards: i32,
    }
}

kernel_struct! {
    /// How far an energy E of the direct form may be off in float32: `offset + root sqrt(E) + slack E`.
    ErrorBound { offset: f32, root: f32, slack: f32 }
}

kernel_struct! {
    /// The probes of a batch.
    Probes {
        values: Address,
        exact: Address,
        far_values: Address,
        logit_scales: Address,
        marks: Address,
        candidate_counts: Address,
        below: Address,
        left_out: Address,
        left_out_words: i32,
        queries: i32,
        mirrors: i32,
        expanded: i32,
        max_candidates: i32,
        cutoff_bits: f32,
        float_bits: f32,
        far_from: f64,
        error_bound: ErrorBound,
    }
}

kernel_struct! {
    /// Where a part of a workspace begins: in shared memory or in a slab of device memory.
    Offset { at: i32, shared: i32 }
}

kernel_struct! {
    /// Square windows and their grid.
    SquareWindows { side: i32, rows: i32, columns: i32 }
}

kernel_struct! {
    /// A warp's workspace for square windows.
    SquareWorkspace {
        slabs: Address,
        slab_len: u64,
        shared_len: i32,
        energy_ring: Offset,
        weight_ring: Offset,
        row_buffers: Offset,
        state: Offset,
    }
}

kernel_struct! {
    /// The pieces of all masks, by mask and by pixel.
    Masks {
        piece_starts: Address,
        pieces: Address,
        member_starts: Address,
        members: Address,
        levels: i32,
        count: i32,
    }
}

kernel_struct! {
    /// The masks as queries see them and as flipped queries do.
    MirroredMasks { plain: Masks, flipped: Masks }
}

kernel_struct! {
    /// A block's workspace for masks.
    MaskWorkspace { slabs: Address, slab_len: u64, tables: Offset, masks: Offset, state: Offset }
}

kernel_struct! {
    /// What pass 2 needs of every window's softmax.
    Normaliser { least: Address, scale: Address }
}

kernel_struct! {
    /// Rows and columns of a plane.
    Extent { rows: i32, columns: i32 }
}

kernel_struct! {
    /// The softmax of every window on every shard.
    ShardEvidence { least: Address, sum: Address, above: Address }
}

kernel_struct! {
    /// The posterior of every window.
    Evidence { least: Address, scale: Address, log2_sums: Address, entropies: Address }
}

kernel_struct! {
    /// Pixels of windows.
    WindowPixels { windows: Address, pixels: Address, count: i32 }
}

kernel_struct! {
    /// Lists of candidates.
    CandidateLists { windows: Address, images: Address, energies: Address, counts: Address }
}

impl CandidateLists {
    /// No lists: the kernels look for no candidates.
    pub(super) const NONE: Self = Self { windows: 0, images: 0, energies: 0, counts: 0 };
}

kernel_struct! {
    /// The pixels of every window.
    WindowShapes {
        starts: Address,
        levels: Address,
        plain: Address,
        flipped: Address,
        rows: i32,
        columns: i32,
        grid_columns: i32,
    }
}

kernel_struct! {
    /// How pixels of z become centred stored pixels.
    PixelUnits { unit: f64, shift: f64, max_z: f64 }
}

/// A value that a kernel can be given: a number or a structure of this file.
pub(super) trait KernelValue: Copy {}
impl KernelValue for i32 {}
impl KernelValue for f32 {}
impl KernelValue for f64 {}
impl KernelValue for Address {}

/// An argument of a launch: points to a value that lives until the launch is queued.
#[derive(Debug, Clone, Copy)]
pub(super) struct KernelArg<'a> {
    value: *const c_void,
    borrowed: PhantomData<&'a ()>,
}

impl<'a> KernelArg<'a> {
    pub(super) fn new<V: KernelValue>(value: &'a V) -> Self {
        Self { value: std::ptr::from_ref(value).cast(), borrowed: PhantomData }
    }

    /// The pointer as the driver takes it; the driver only reads through it.
    pub(super) fn as_ptr(self) -> *mut c_void {
        self.value.cast_mut()
    }
}

/// References to values as the arguments of a launch, in the order of the kernel's parameters.
macro_rules! kernel_args {
    ($($value:expr),* $(,)?) => { &[$($crate::cuda::layout::KernelArg::new($value)),*] };
}
pub(super) use kernel_args;

#[cfg(test)]
mod tests {
    use super::*;

    const KERNELS: [&str; 6] = [
        include_str!("kernels/common.cu"),
        include_str!("kernels/dense_square.cu"),
        concat!(include_str!("kernels/masks.cu"), include_str!("kernels/dense_masks.cu")),
        concat!(include_str!("kernels/planes.cu"), include_str!("kernels/evidence.cu")),
        include_str!("kernels/variance.cu"),
        concat!(include_str!("kernels/sparse.cu"), include_str!("kernels/posterior.cu")),
    ];

    /// Names and types of the fields that a CUDA structure declares, up to its first function.
    fn cuda_fields(name: &str) -> Vec<(String, String)> {
        let text = KERNELS.concat();
        let (_, body) = text.split_once(&format!("struct {name} {{\n")).unwrap_or_else(|| panic!("no struct {name}"));
        let lines = body.lines().map(|line| line.split("//").next().unwrap_or("").trim());
        let fields = lines.take_while(|line| line.ends_with(';') && !line.contains(['(', '}']));
        fields
            .map(|line| {
                let (kind, field) = line.trim_end_matches(';').rsplit_once(' ').expect("a type and a name");
                (field.to_owned(), kind.to_owned())
            })
            .collect()
    }

    /// The Rust type that lies in memory as a CUDA type does.
    fn rust_type(cuda: &str) -> &str {
        match cuda {
            pointer if pointer.ends_with('*') => "Address",
            "int" => "i32",
            "float" => "f32",
            "double" => "f64",
            other => other,
        }
    }

    #[test]
    fn structures_have_the_fields_of_their_cuda_twins() {
        let structures = [
            ("Images", Images::FIELDS),
            ("ErrorBound", ErrorBound::FIELDS),
            ("Probes", Probes::FIELDS),
            ("Offset", Offset::FIELDS),
            ("SquareWindows", SquareWindows::FIELDS),
            ("SquareWorkspace", SquareWorkspace::FIELDS),
            ("Masks", Masks::FIELDS),
            ("MirroredMasks", MirroredMasks::FIELDS),
            ("MaskWorkspace", MaskWorkspace::FIELDS),
            ("Normaliser", Normaliser::FIELDS),
            ("Extent", Extent::FIELDS),
            ("ShardEvidence", ShardEvidence::FIELDS),
            ("Evidence", Evidence::FIELDS),
            ("WindowPixels", WindowPixels::FIELDS),
            ("CandidateLists", CandidateLists::FIELDS),
            ("WindowShapes", WindowShapes::FIELDS),
            ("PixelUnits", PixelUnits::FIELDS),
        ];
        for (name, fields) in structures {
            let cuda = cuda_fields(name);
            let cuda: Vec<(&str, &str)> = cuda.iter().map(|(field, kind)| (field.as_str(), rust_type(kind))).collect();
            assert_eq!(cuda, fields, "{name}");
        }
    }
}

//! A crate that forbids unsafe code cannot run vector instructions that were not detected: nothing by which it could is
//! public, not even with the hidden features.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The error codes of rustc for a crate of this source, none if it compiles.
fn errors_of(name: &str, source: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soundness");
    let crate_folder = folder.join(name);
    fs::create_dir_all(crate_folder.join("src")).expect("a folder for the crate");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
         [dependencies]\npspc-rs = {{ path = '{}', features = [\"stages\"] }}\n",
        root.display()
    );
    fs::write(crate_folder.join("Cargo.toml"), manifest).expect("a manifest");
    fs::copy(root.join("Cargo.lock"), crate_folder.join("Cargo.lock")).expect("the versions of the dependencies");
    fs::write(crate_folder.join("src/main.rs"), format!("#![forbid(unsafe_code)]\nfn main() {{ {source} }}\n"))
        .expect("a source");
    let checked = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet", "--message-format=json"])
        .current_dir(&crate_folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()
        .expect("cargo runs");
    let messages = String::from_utf8_lossy(&checked.stdout).into_owned();
    let codes = messages.split("\"code\":{\"code\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let mut codes: Vec<String> = codes.filter(|code| code.starts_with('E')).map(str::to_owned).collect();
    codes.dedup();
    if codes.is_empty() {
        assert!(checked.status.success(), "{messages}{}", String::from_utf8_lossy(&checked.stderr));
    }
    codes
}

#[test]
fn safe_code_cannot_choose_an_instruction_set() {
    let works = "let _ = pspc_rs::info::instruction_sets(); let _ = pspc_rs::stages::peak(1);";
    assert_eq!(errors_of("works", works), Vec::<String>::new());
    // E0603: the item is private; E0624: the method is private too.
    for (name, source) in [
        ("token", "let _ = pspc_rs::simd::Isa::available();"),
        ("vectors", "fn f<V: pspc_rs::simd::Vector>(v: V) -> V { v }"),
        ("kernel", "let _ = pspc_rs::cpu::peak::vector_rate();"),
        ("tile", "let _ = pspc_rs::cpu::tile::Tile::<u8>::new(1, 1);"),
    ] {
        let errors = errors_of(name, source);
        assert_eq!(errors.first().map(String::as_str), Some("E0603"), "{name}: {errors:?}");
        assert!(errors.iter().all(|code| code == "E0603" || code == "E0624"), "{name}: {errors:?}");
    }
}

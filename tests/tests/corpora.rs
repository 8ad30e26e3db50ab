//! Every input that fuzzing found worth keeping, through the targets that found it.

use peerlink_tests::fuzz_targets::ALL;
use std::fs;
use std::path::Path;

#[test]
fn the_corpora_of_all_targets_hold() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in ALL {
        let files = fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("corpus {name}: {error}"));
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 8, "corpus {name} is nearly empty");
        for file in files {
            println!("{}", file.display());
            target(&fs::read(&file).unwrap());
        }
    }
    assert_eq!(fs::read_dir(corpora).unwrap().count(), ALL.len(), "a corpus that no target replays");
}

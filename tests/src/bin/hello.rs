//! The program of the test image `hello-world`.

fn main() {
    println!(
        "\nHello from Docker!\nThis message shows that your installation appears to be working correctly.\n"
    );
}

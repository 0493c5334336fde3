# Builds from source: brew install --HEAD ./packaging/homebrew/keyward.rb
# packaging/release.sh adds a release's archive and its checksum above `head`.
class Keyward < Formula
  desc "Self-hosted API-key server that answers the Unkey v2 HTTP API"
  homepage "https://github.com/keyward/keyward"
  license "Apache-2.0"
  head "https://github.com/keyward/keyward.git", branch: "main"

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    generate_completions_from_executable(bin/"keyward", "completions")
    system bin/"keyward", "man", "--dir", man1
    pkgetc.install "config/keyward.toml"
    doc.install Dir["packaging/docs/*.md"]
  end

  def post_install
    (var/"keyward").mkpath
    (var/"keyward").chmod 0700
  end

  def caveats
    <<~EOS
      The first start writes the first root key to
        #{var}/keyward/root.key
    EOS
  end

  service do
    run [opt_bin/"keyward", "serve", "--config", etc/"keyward/keyward.toml", "--data-dir", var/"keyward"]
    keep_alive crashed: true
    error_log_path var/"log/keyward.log"
    working_dir var
  end

  test do
    port = free_port
    ENV["KEYWARD_ROOT_KEY"] = "unkey_the_root_key_of_this_test"
    server = spawn bin/"keyward", "serve", "--data-dir", testpath/"data", "--listen", "127.0.0.1:#{port}"
    begin
      sleep 3
      assert_match "ok", shell_output("curl --silent http://127.0.0.1:#{port}/health/ready")
      ENV["KEYWARD_API_URL"] = "http://127.0.0.1:#{port}"
      assert_match "api_", shell_output("#{bin}/keyward api apis create-api --name 'first api'")
    ensure
      Process.kill "TERM", server
      Process.wait server
    end
  end
end

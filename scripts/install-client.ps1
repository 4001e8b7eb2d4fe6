# Installs the edge agent, arpc, for this user: into %LOCALAPPDATA%\arpc\bin. Run it again to upgrade.
#
#     irm BASE/install-client.ps1 | iex
#
# Variables: ARP_BASE_URL, where the archives lie; ARP_VERSION, which one; ARP_UNINSTALL=1 removes arpc (its key,
# tokens and sessions stay).
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version 2

# Where the release archives lie; a release writes its own address in here.
$base = if ($env:ARP_BASE_URL) { $env:ARP_BASE_URL } else { '@BASE_URL@' }
$bin = Join-Path $env:LOCALAPPDATA 'arpc\bin'

function Set-UserPath([scriptblock] $change) {
    $parts = @([Environment]::GetEnvironmentVariable('Path', 'User') -split ';' | Where-Object { $_ })
    [Environment]::SetEnvironmentVariable('Path', ((& $change $parts) -join ';'), 'User')
}

if ($env:ARP_UNINSTALL) {
    foreach ($name in 'arpc-session-host.exe', 'arpc.exe', 'clp.exe', 'prx.exe') {
        Remove-Item -Force -ErrorAction SilentlyContinue (Join-Path $bin $name), (Join-Path $bin "$name.*old")
    }
    Set-UserPath { param($parts) $parts | Where-Object { $_ -ne $bin } }
    Write-Host 'arpc is removed.'
    return
}

if ($base.StartsWith('@')) { throw 'Set ARP_BASE_URL to where the release archives lie.' }
$machine = switch ($env:PROCESSOR_ARCHITECTURE) {
    'AMD64' { 'x86_64' }
    'ARM64' { 'aarch64' }
    default { throw "There is no archive for $_ : build it with cargo install --locked --path arp-client" }
}
$base = $base.TrimEnd('/')
if ($env:ARP_VERSION) {
    # As GitHub has them: releases/latest/download and releases/download/VERSION.
    if ($base.EndsWith('/latest/download')) {
        $base = $base.Substring(0, $base.Length - '/latest/download'.Length) + "/download/$($env:ARP_VERSION)"
    } else {
        $base = "$base/$($env:ARP_VERSION)"
    }
}
$archive = "arp-$machine-pc-windows-msvc.zip"

$scratch = Join-Path ([IO.Path]::GetTempPath()) ([Guid]::NewGuid())
New-Item -ItemType Directory -Path $scratch | Out-Null
try {
    [Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::Tls12
    Write-Host "Fetching $archive"
    $zip = Join-Path $scratch $archive
    $sums = Join-Path $scratch 'SHA256SUMS'
    Invoke-WebRequest -UseBasicParsing "$base/SHA256SUMS" -OutFile $sums
    Invoke-WebRequest -UseBasicParsing "$base/$archive" -OutFile $zip
    $line = Get-Content $sums | Where-Object { $_ -match "^[0-9a-f]{64}\s+\*?$([regex]::Escape($archive))$" } | Select-Object -First 1
    if (-not $line) { throw "SHA256SUMS names no checksum of $archive." }
    $wanted = ($line -split '\s+')[0]
    $given = (Get-FileHash -Algorithm SHA256 $zip).Hash.ToLowerInvariant()
    if ($wanted -ne $given) { throw "$archive is not what SHA256SUMS says (given $given); nothing was installed." }
    Expand-Archive -Path $zip -DestinationPath $scratch

    New-Item -ItemType Directory -Force -Path $bin | Out-Null
    foreach ($name in 'arpc-session-host.exe', 'arpc.exe', 'clp.exe', 'prx.exe') {
        $new = Get-ChildItem -Path $scratch -Recurse -Filter $name | Select-Object -First 1
        if (-not $new) { continue }
        $place = Join-Path $bin $name
        # A running program cannot be written over, but it can be moved aside; sessions that run on keep it there.
        if (Test-Path $place) { Move-Item -Force $place "$place.$([Guid]::NewGuid()).old" }
        Copy-Item $new.FullName $place
        Remove-Item -Force -ErrorAction SilentlyContinue "$place.*old"
    }
    $version = & (Join-Path $bin 'arpc.exe') --version
    if ($LASTEXITCODE -ne 0) { throw 'The program does not run on this machine.' }
} finally {
    Remove-Item -Recurse -Force -ErrorAction SilentlyContinue $scratch
}
Set-UserPath { param($parts) if ($parts -contains $bin) { $parts } else { $parts + $bin } }
$env:Path = "$env:Path;$bin"

Write-Host ''
Write-Host "$version is in $bin (new terminals find it)."
Write-Host "Next, with the address that the relay's installation printed:"
Write-Host ''
Write-Host '  arpc --server-addr RELAY --command-mode'

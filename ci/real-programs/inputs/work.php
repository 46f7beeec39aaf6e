<?php
// What web applications do, with the extensions that they have: texts, JSON, XML, databases, pictures, archives.

function digest(string $name, string $bytes): void
{
    echo $name, ' ', strlen($bytes), ' ', hash('sha256', $bytes), "\n";
}

function words(int $count): array
{
    $made = [];
    $state = 1;
    for ($index = 0; $index < $count; $index++) {
        $state = ($state * 1103515245 + 12345) % 2147483648;
        $made[] = 'wört' . base_convert((string) $state, 10, 36);
    }
    return $made;
}

$words = words(40000);
$counts = [];
foreach ($words as $word) {
    $key = mb_strtoupper(mb_substr($word, 0, 6));
    $counts[$key] = ($counts[$key] ?? 0) + 1;
}
ksort($counts);
digest('counts', json_encode($counts, JSON_THROW_ON_ERROR));
digest('replaced', preg_replace_callback('/\d+/', fn ($found) => strrev($found[0]), implode(' ', $words)));

$document = new DOMDocument();
$root = $document->appendChild($document->createElement('words'));
foreach (array_slice($words, 0, 5000) as $word) {
    $root->appendChild($document->createElement('word', $word))->setAttribute('length', (string) mb_strlen($word));
}
$text = $document->saveXML();
digest('xml', $text);
digest('simplexml', (string) count(simplexml_load_string($text)->xpath('//word[@length > 9]')));

$database = new PDO('sqlite::memory:');
$database->exec('create table words (word text, length integer)');
$insert = $database->prepare('insert into words values (?, ?)');
$database->beginTransaction();
foreach ($words as $word) {
    $insert->execute([$word, strlen($word)]);
}
$database->commit();
$rows = $database->query('select length, count(*), min(word) from words group by length order by 1')->fetchAll();
digest('rows', serialize($rows));

$picture = imagecreatetruecolor(400, 300);
for ($index = 0; $index < 400; $index++) {
    imageellipse($picture, $index, 150, $index, 299 - $index % 300, $index * 9973 % 0xffffff);
}
ob_start();
imagepng($picture);
digest('picture', ob_get_clean());

$path = tempnam(sys_get_temp_dir(), 'zip');
$archive = new ZipArchive();
$archive->open($path, ZipArchive::OVERWRITE);
$archive->addFromString('words.txt', implode("\n", $words));
$archive->close();
$archive->open($path);
digest('archive', $archive->getFromName('words.txt'));
unlink($path);

$sorted = array_slice($words, 0, 2000);
(new Collator('de_DE'))->sort($sorted);
digest('sorted', implode("\n", $sorted));
digest('packed', gzuncompress(gzcompress(serialize($words), 6)));
echo 'curl ', curl_init() instanceof CurlHandle ? 'is there' : 'is not there', "\n";

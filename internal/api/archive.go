package api

// Calls about files and folders that configurations name. They are those of later versions
// of the published client; the upload is a multipart form as for repos/upload_code.
const (
	PathArchiveByHash = "/api/files/get_archive_by_hash" // GetArchiveByHash → FileArchive
	PathUploadArchive = "/api/files/upload_archive"      // file → FileArchive
)

// GetArchiveByHash is the body of PathArchiveByHash.
type GetArchiveByHash struct {
	Hash string `json:"hash"`
}

// FileArchive is an uploaded file or folder of the caller.
type FileArchive struct {
	ID   string `json:"id"`
	Hash string `json:"hash"`
}

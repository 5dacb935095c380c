{{- define "dstack.name" -}}
{{- if contains "dstack" .Release.Name -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{- else -}}{{ printf "%s-dstack" .Release.Name | trunc 50 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "dstack.selector" -}}
app.kubernetes.io/name: dstack-server
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dstack.labels" -}}
{{ include "dstack.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "dstack.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "dstack.account" -}}
{{ default (include "dstack.name" .) .Values.serviceAccount.name }}
{{- end -}}

{{- define "dstack.check" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.database.secret) -}}
{{- fail "replicas above 1 need a database: create a secret with the key url, and set database.secret" -}}
{{- end -}}
{{- if and .Values.database.secret (not .Values.database.keySecret) -}}
{{- fail "database.secret needs database.keySecret: a secret with the key encryption.key, without which the database cannot be read" -}}
{{- end -}}
{{- if and .Values.ingress.className (not .Values.ingress.host) -}}
{{- fail "ingress.className needs ingress.host" -}}
{{- end -}}
{{- end -}}

{{- define "dstack.location" -}}
- {name: HOME, value: /var/lib/dstack}
- {name: DSTACK_SERVER_DIR, value: /var/lib/dstack}
{{- with .Values.database.secret }}
- {name: DSTACK_DATABASE_URL, valueFrom: {secretKeyRef: {name: {{ . }}, key: url}}}
{{- end }}
{{- end -}}
